"""Every kernel of the CPU backend, and a program that compiles some of them: `edgert_quant.jit.helpers` starts it."""

from __future__ import annotations

from edgert_quant import jit
from edgert_quant.jit.helpers import serve

from edgert_runtimes.cpu.formats import format_for, packed_types
from edgert_runtimes.cpu.kernels import (
    adapters,
    attend,
    checks,
    division,
    executor,
    gates,
    heads,
    linear,
    moe,
    recurrent,
    route,
    rowkeys,
    rows,
    softmax,
    storing,
    tiles,
)

BASE_KERNELS = (executor.run_step, executor.run_worker, executor.stop_workers, checks.check_batch)
"""What every model needs."""


def all_kernels() -> list[jit.Kernel]:
    """Those of every op and block type, for this CPU."""
    formats = [form for block_type in packed_types() if (form := format_for(block_type)) is not None]
    modules = (adapters, attend, division, gates, heads, linear, moe, recurrent, route, rows, softmax)
    found = [item for module in modules for item in vars(module).values() if isinstance(item, jit.Kernel)]
    by_type = (
        *(storing.STORE_KEY, storing.STORE_ROW),
        *(tiles.SCORE_KERNELS, tiles.VALUE_KERNELS, rowkeys.ROW_SCORE_KERNELS),
    )
    found += [kernel for kernels in by_type for kernel in kernels.values()]
    return list(dict.fromkeys([*BASE_KERNELS, *found, *(kernel for form in formats for kernel in form.kernels())]))


if __name__ == "__main__":
    serve({kernel.name: kernel for kernel in all_kernels()})
