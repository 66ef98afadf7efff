"""Layouts of the types with blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.

Packed: 16 scales as halves, or 16 words of scale and minimum; for the five-bit types one word (16 rows) with the fifth
bits: bit g of its byte i is bit 4 of code 4 g + i; the codes as words of four, word after word, 16 rows each.
Blocks of the file: `block_q*` of ggml's `ggml-common.h`.
"""

from __future__ import annotations

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.layout import STEPS, Layout, Scales, Word, store_words
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import (
    HALVES,
    I16,
    ROW_WORD,
    WORDS,
    Offset,
    Value,
    load,
    mask,
    same,
    shift_left,
    shift_right,
    step,
    store,
    word_of_halves,
)


class Small(Layout):
    """What the five types share: where scale and minimum are."""

    codes_at: int

    def header(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> int:
        """Move scale and minimum; the bytes of the file they took."""
        if self.minima:
            store(b, place, 0, raw.column(0), align=32)
            return 4
        store(b, place, 0, raw.column(0, I16), align=32)
        return 2

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d, and -m: the types add their minimum."""
        if not self.minima:
            return Scales([emit.half_to_float(b, load(b, place, 0, HALVES, align=32))])
        scale, minimum = word_of_halves(b, load(b, place, 0, WORDS, align=32))
        return Scales([scale], [b.fneg(minimum)])


class Q8_0(Small):  # noqa: N801
    """w = d q; the codes are stored as q + 128."""

    type = BlockType.Q8_0
    codes_at = 32
    bytes = codes_at + STEPS * ROW_WORD
    bits = 8
    offset = 128

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Half d, int8 q[32]."""
        start = self.header(b, raw, place)
        for i, word in enumerate(raw.columns(start, STEPS)):
            flipped = b.xor(word, same(word, -0x7F7F7F80))  # 0x80 in every byte
            store(b, place, self.codes_at + ROW_WORD * i, flipped, align=32)

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """A word as it is."""
        return word(self.codes_at + ROW_WORD * number)


class Nibbles(Small):
    """Four bits: byte j of the 16 holds code j (low) and code j + 16, so four words serve eight steps."""

    bits = 4

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Half d, (half m), uint8 qs[16]."""
        start = self.header(b, raw, place)
        store_words(b, step(b, place, self.codes_at), raw.columns(start, STEPS // 2))

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """Low halves in the first four steps, high halves in the others."""
        high, index = divmod(number, STEPS // 2)
        return mask(b, shift_right(b, word(self.codes_at + ROW_WORD * index), 4 * high), 0x0F0F0F0F)


class FiveBits(Nibbles):
    """Nibbles and a word of fifth bits."""

    bits = 5
    bits_at: int

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Half d, (half m), uint32 qh, uint8 qs[16]; bit j of qh belongs to code j."""
        start = self.header(b, raw, place)
        store(b, place, self.bits_at, spread_by_step(b, raw.column(start)), align=32)
        store_words(b, step(b, place, self.codes_at), raw.columns(start + 4, STEPS // 2))

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """Nibble and fifth bit."""
        fifth = mask(b, shift_left(b, word(self.bits_at), 4 - number), 0x10101010)
        return b.or_(super().codes(b, word, group, block, number), fifth)


def spread_by_step(b: ir.IRBuilder, bits: Value) -> Value:
    """Bit 4 g + i of each word → bit g of its byte i."""
    result = None
    for i in range(4):
        part = mask(b, shift_right(b, bits, i), 0x11111111)
        for shift, keep in ((3, 0x03030303), (6, 0x000F000F), (12, 0xFF)):  # bits 4 apart move together
            part = mask(b, b.or_(part, shift_right(b, part, shift)), keep)
        part = shift_left(b, part, 8 * i)
        result = part if result is None else b.or_(result, part)
    return result


class Q4_0(Nibbles):  # noqa: N801
    """w = d (q - 8)."""

    type = BlockType.Q4_0
    codes_at = 32
    bytes = codes_at + STEPS // 2 * ROW_WORD
    offset = 8


class Q4_1(Nibbles):  # noqa: N801
    """w = d q + m."""

    type = BlockType.Q4_1
    codes_at = 64
    bytes = codes_at + STEPS // 2 * ROW_WORD
    minima = 1


class Q5_0(FiveBits):  # noqa: N801
    """w = d (q - 16)."""

    type = BlockType.Q5_0
    bits_at = 32
    codes_at = 32 + ROW_WORD
    bytes = codes_at + STEPS // 2 * ROW_WORD
    offset = 16


class Q5_1(FiveBits):  # noqa: N801
    """w = d q + m."""

    type = BlockType.Q5_1
    bits_at = 64
    codes_at = 64 + ROW_WORD
    bytes = codes_at + STEPS // 2 * ROW_WORD
    minima = 1


LAYOUTS: tuple[Layout, ...] = (Q8_0(), Q4_0(), Q4_1(), Q5_0(), Q5_1())
