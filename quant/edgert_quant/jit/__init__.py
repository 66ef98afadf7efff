"""Compiled kernels with a cache on disk that is ours.

A kernel is written once, as a Python function that Numba compiles (`kernel`) or as a function that emits LLVM IR
(`ir_kernel`). The native object file goes to a folder of the user's, behind a checked header, and is loaded through
llvmlite alone: a process that finds all its kernels in the cache never imports Numba.

    @kernel
    def scale(x: int, y: int, n: int, factor: float) -> None:
        for i in range(n):
            store_f32(y, i, float32(factor) * load_f32(x, i))

    scale(source.ctypes.data, target.ctypes.data, n, 0.5)      # through ctypes: the GIL is released
    call4(address_of_another_kernel, a, b, c, d)               # inside a kernel: by address

Every native function takes 64-bit integers (sizes, addresses) and float64, and returns an int64: 0 where the Python
function returns None. Kernels neither allocate nor raise; one that would is refused when it is compiled.
"""

from edgert_quant.jit.cache import CacheWarning, cache_folder
from edgert_quant.jit.declare import Device, Kernel, device, ir_kernel, kernel, prepare
from edgert_quant.jit.operation import Primitive, primitive
from edgert_quant.jit.target import Target, compiling_for, host

__all__ = [
    "CacheWarning",
    "Device",
    "Kernel",
    "Primitive",
    "Target",
    "cache_folder",
    "compiling_for",
    "device",
    "host",
    "ir_kernel",
    "kernel",
    "prepare",
    "primitive",
]
