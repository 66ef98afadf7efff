"""Which block types the CPU runtime multiplies by, and how."""

from __future__ import annotations

from functools import cache

from edgert_quant.blocks import BlockType

from edgert_runtimes.cpu.formats import blocks32, blocks256, codebooks, lowbits, tables
from edgert_runtimes.cpu.formats.activations import Codes, SuperCodes, activation
from edgert_runtimes.cpu.formats.base import Format
from edgert_runtimes.cpu.formats.floats import ELEMENTS, Element, FloatFormat
from edgert_runtimes.cpu.formats.isa import Isa, host_isa
from edgert_runtimes.cpu.formats.layout import Layout
from edgert_runtimes.cpu.formats.leveled import LeveledBlocks
from edgert_runtimes.cpu.formats.quantized import multiplied_bits
from edgert_runtimes.cpu.formats.rowwise import RowwiseBlocks, by_rows
from edgert_runtimes.cpu.formats.rowwise32 import RowwiseScaled, by_rows32
from edgert_runtimes.cpu.formats.scaled import ScaledBlocks


def format_for(block_type: BlockType, isa: Isa | None = None) -> Format | None:
    """The packed format of a block type for an instruction set (by default `host_isa()`), or None where there is none.

    The same object is returned every time.
    """
    return _format(block_type, isa or host_isa())


def packed_types() -> tuple[BlockType, ...]:
    """The block types that have a format."""
    return tuple(_kinds())


WIDE = {"q8": "q8w", "q8k": "q8kw"}
"""The same inputs for instruction sets that multiply 16-bit numbers."""


@cache
def _kinds() -> dict[BlockType, Element | Layout]:
    modules = (blocks32, blocks256, lowbits, tables, codebooks)
    kinds: list[Element | Layout] = [*ELEMENTS, *(layout for module in modules for layout in module.LAYOUTS)]
    return {kind.type: kind for kind in kinds}


@cache
def _format(block_type: BlockType, isa: Isa) -> Format | None:
    kind = _kinds().get(block_type)
    if kind is None:
        return None
    if isinstance(kind, Element):
        return FloatFormat(kind, isa)
    name = "q8k" if kind.leveled else "q8"
    codes = activation(WIDE[name] if isa.wide(multiplied_bits(kind, isa)) else name)
    if isinstance(codes, SuperCodes):
        return (RowwiseBlocks if by_rows(block_type, isa) else LeveledBlocks)(kind, isa, codes)
    assert isinstance(codes, Codes)
    return (RowwiseScaled if by_rows32(block_type, isa) else ScaledBlocks)(kind, isa, codes)
