"""Which block types the CPU runtime multiplies by, and how."""

from __future__ import annotations

from functools import cache

from edgert_quant.blocks import BlockType

from edgert_runtimes.cpu.formats.activations import Codes, activation
from edgert_runtimes.cpu.formats.base import Format
from edgert_runtimes.cpu.formats.isa import Isa, host_isa


def format_for(block_type: BlockType, isa: Isa | None = None) -> Format | None:
    """The packed format of a block type for an instruction set (by default `host_isa()`), or None where there is none.

    The same object is returned every time.
    """
    return _formats(isa or host_isa()).get(block_type)


def packed_types() -> tuple[BlockType, ...]:
    """The block types that have a format."""
    return tuple(_formats(host_isa()))


ACTIVATIONS = {BlockType.Q8_0: "q8x2"}
"""Q8_0 is chosen to be nearly lossless, so its inputs keep 16 bits; types of fewer bits take 8-bit inputs."""

WIDE = {"q8": "q8w", "q8x2": "q16w"}
"""The same inputs for instruction sets that multiply 16-bit numbers."""


@cache
def _formats(isa: Isa) -> dict[BlockType, Format]:
    from edgert_runtimes.cpu.formats import blocks32, blocks256, codebooks, lowbits, tables
    from edgert_runtimes.cpu.formats.floats import ELEMENTS, FloatFormat
    from edgert_runtimes.cpu.formats.layout import multiplied_bits
    from edgert_runtimes.cpu.formats.quantized import BlockFormat

    formats: dict[BlockType, Format] = {element.type: FloatFormat(element, isa) for element in ELEMENTS}
    for layout in (layout for module in (blocks32, blocks256, lowbits, tables, codebooks) for layout in module.LAYOUTS):
        name = ACTIVATIONS.get(layout.type, "q8")
        codes = activation(WIDE[name] if isa.wide(multiplied_bits(layout, isa)) else name)
        assert isinstance(codes, Codes)
        formats[layout.type] = BlockFormat(layout, isa, codes)
    return formats
