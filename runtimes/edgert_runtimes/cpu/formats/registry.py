"""Which block types the CPU runtime multiplies by, and how."""

from __future__ import annotations

from functools import cache

from edgert_quant.blocks import BlockType

from edgert_runtimes.cpu.formats.activations import Codes, SuperCodes, activation
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


WIDE = {"q8": "q8w", "q8x2": "q16w", "q8k": "q8kw"}
"""The same inputs for instruction sets that multiply 16-bit numbers."""


@cache
def _formats(isa: Isa) -> dict[BlockType, Format]:
    from edgert_runtimes.cpu.formats import blocks32, blocks256, codebooks, lowbits, tables
    from edgert_runtimes.cpu.formats.floats import ELEMENTS, FloatFormat
    from edgert_runtimes.cpu.formats.leveled import LeveledBlocks
    from edgert_runtimes.cpu.formats.quantized import multiplied_bits
    from edgert_runtimes.cpu.formats.rowwise import ROWS, RowwiseBlocks
    from edgert_runtimes.cpu.formats.scaled import ScaledBlocks

    formats: dict[BlockType, Format] = {element.type: FloatFormat(element, isa) for element in ELEMENTS}
    for layout in (layout for module in (blocks32, blocks256, lowbits, tables, codebooks) for layout in module.LAYOUTS):
        # Q8_0 is chosen to be nearly lossless, so its inputs keep 16 bits; types of fewer bits take 8-bit inputs.
        name = "q8k" if layout.leveled else "q8x2" if layout.type is BlockType.Q8_0 else "q8"
        codes = activation(WIDE[name] if isa.wide(multiplied_bits(layout, isa)) else name)
        if isinstance(codes, SuperCodes):
            by_rows = isa.by_rows and layout.type in ROWS
            formats[layout.type] = (RowwiseBlocks if by_rows else LeveledBlocks)(layout, isa, codes)
        else:
            assert isinstance(codes, Codes)
            formats[layout.type] = ScaledBlocks(layout, isa, codes)
    return formats
