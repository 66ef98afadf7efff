"""A helper that compiles the sample kernels, all but one."""

from edgert_quant.jit import Kernel
from edgert_quant.jit.helpers import serve

from tests.quant.jit import sample_kernels

KERNELS = {item.name: item for item in vars(sample_kernels).values() if isinstance(item, Kernel)}

if __name__ == "__main__":
    serve({name: item for name, item in KERNELS.items() if item is not sample_kernels.indirect})
