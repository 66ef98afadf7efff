"""How keys and values of each type lie in the cache, and the IR that reads and writes them.

A block of the cache has, for every kv head, keys and values of the same size. Keys come in *panels* of 16 positions,
element after element, so that a score needs no sum across lanes: 16 numbers [element][16 positions], or for Q8_0 and
Q4_0, group after group of 32 elements, 16 half scales and then the codes, [32][16] bytes or [16][16] bytes whose low
and high nibbles are elements 2i and 2i + 1. Values are rows [positions][head size]; those of Q8_0 and Q4_0 begin with
a half scale for each group, and the nibbles of byte i of a group are elements i and i + 16.

What is read is exact in float32: a code has at most 8 bits, a half 11. So it makes no difference where it is read.
How numbers are rounded is said in `edgert_runtimes.reference.cache`.
"""

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit

from edgert_runtimes.cpu.formats import activations, vectors
from edgert_runtimes.cpu.formats.vectors import I16, I32
from edgert_runtimes.cpu.kernels.caches import base, groups, numbers
from edgert_runtimes.cpu.kernels.caches.base import GROUP, CacheLayout
from edgert_runtimes.cpu.kernels.caches.groups import Q4, Q8
from edgert_runtimes.cpu.kernels.caches.numbers import Numbers, as_bits, as_float

__all__ = ["GROUP", "LAYOUTS", "SOURCES", "CacheLayout"]

SOURCES = (activations, base, emit, groups, numbers, vectors)
"""The modules that kernels are emitted by which read or write a cache."""

LAYOUTS: dict[str, CacheLayout] = {
    layout.type.name.lower(): layout
    for layout in (
        Numbers(
            BlockType.F32,
            I32,
            as_float,
            as_bits,
        ),
        Numbers(BlockType.F16, I16, emit.half_to_float, emit.float_to_half),
        Numbers(BlockType.BF16, I16, emit.bfloat_to_float, emit.float_to_bfloat),
        Q8(),
        Q4(),
    )
}
"""By name, as users type it."""
