"""What tells one block type from another: how a block of 16 rows lies once it is packed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgert_quant.blocks import BlockType
from llvmlite import ir

from edgert_runtimes.cpu.formats.activations import BLOCK
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import FLOATS, ROW_WORD, Offset, Value, halves_of, store

STEPS = BLOCK // 4
"""Words of four codes in a block of 32."""


@dataclass(frozen=True)
class Scales:
    """Of 32 weights of 16 rows: one factor, or one for each 16, and a minimum to subtract, or none.

    `levels` and `minimum_levels`, words of two signed 16-bit numbers, make of one factor, or minimum, those of each 16;
    then these are the same for all weights of a block. `shift` says that the minimum is factor · -shift: unpacked
    weights are factor · (code - offset + shift), whose zeros have signs of their own.
    """

    factors: Sequence[Value]
    minima: Sequence[Value] = ()
    shift: Value | None = None
    levels: Value | None = None
    minimum_levels: Value | None = None

    def spread(self, b: ir.IRBuilder) -> Scales:
        """The same without levels."""
        factors, minima = (
            values if levels is None else [b.fmul(values[0], b.sitofp(level, FLOATS)) for level in halves_of(b, levels)]
            for values, levels in ((self.factors, self.levels), (self.minima, self.minimum_levels))
        )
        return Scales(factors, minima, self.shift)


Word = Callable[[Offset], Value]
"""Reads the word(s) at an offset of the block: of all 16 rows in a matmul, of one row when unpacking."""


class Layout(ABC):
    """How the blocks of one type lie in a panel: one behind the other, each `bytes` for 16 rows, scales first.

    A block of the file is walked in `groups` rounds of `blocks` times 32 weights.
    """

    type: BlockType
    bytes: int
    alignment: int = 32
    """Of the blocks and the codes in them; divides `bytes`."""
    bits: int
    """Of a code: all are below 2^bits."""
    groups: int = 1
    blocks: int = 1
    halves: int = 1
    offset: int = 0
    """The codes are so much too large."""
    minima: int = 0
    """1: 32 weights have a minimum."""
    leveled: bool = False
    """Their scales have `levels`, and `minimum_levels` if there are minima."""
    slow: bool = False
    """Putting rows side by side takes so long that more tokens than one are worth a panel."""
    table: tuple[int, ...] = ()
    """What the codes, then indices of up to four bits, stand for; empty: they are numbers themselves."""

    @abstractmethod
    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Move one block of 16 rows from the file's layout to ours, but for what `pack_round` moves."""

    def pack_round(self, b: ir.IRBuilder, raw: RawRows, place: Value, group: Offset) -> None:  # noqa: B027
        """Move what only one round needs; long blocks are better not moved in one go."""

    @abstractmethod
    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """Of the 32 weights `block` in round `group`."""

    @abstractmethod
    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """Codes 4 number … 4 number + 3 of those 32 weights, as words of four unsigned bytes."""


def store_words(b: ir.IRBuilder, place: Value, words: Sequence[Value]) -> None:
    """Words of 16 rows, one behind the other."""
    for i, word in enumerate(words):
        store(b, place, ROW_WORD * i, word, align=16)
