"""Layouts of the types with super-blocks of 256 weights: Q4_K, Q5_K and Q6_K. Their packed blocks are whole cache
lines. Blocks of the file: `block_q*_K` of ggml's `ggml-common.h`.
"""

from __future__ import annotations

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.layout import Layout, Scales, Word, store_words
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import (
    FLOATS,
    I8,
    I16,
    ROW_WORD,
    WORDS,
    Offset,
    Value,
    add,
    i64,
    load,
    mask,
    multiply,
    same,
    shift_left,
    shift_right,
    step,
    store,
    word_of_halves,
)

BYTES = ir.VectorType(I8, LANES)


def bytes_as_words(b: ir.IRBuilder, place: Value, offset: Offset) -> Value:
    """Sixteen unsigned bytes, one per row, as words."""
    return b.zext(load(b, place, offset, BYTES, align=16), WORDS)


def byte_of(b: ir.IRBuilder, word: Value, index: Offset, keep: int = 0xFF) -> Value:
    """A byte of words of 16 rows, or some low bits of it."""
    return mask(b, shift_right(b, word, multiply(b, index, 8)), keep)


def twice(b: ir.IRBuilder, levels: Value) -> Value:
    """Words below 2^15 as two 16-bit numbers."""
    return b.or_(levels, shift_left(b, levels, 16))


def bytes_of(b: ir.IRBuilder, word: Value, pair: Offset) -> Value:
    """Two bytes of words of 16 rows as 16-bit numbers in a word."""
    both = shift_right(b, word, multiply(b, pair, 16))
    return b.or_(mask(b, both, 0xFF), shift_left(b, mask(b, both, 0xFF00), 8))


def signed_bytes_of(b: ir.IRBuilder, word: Value, pair: int) -> Value:
    """Two bytes, from -128 to 127, as 16-bit numbers in a word."""
    pairs = ir.VectorType(I16, 2 * LANES)
    numbers = b.bitcast(shift_left(b, bytes_of(b, word, pair), 8), pairs)
    return b.bitcast(b.ashr(numbers, same(numbers, 8)), WORDS)


def store_halves(b: ir.IRBuilder, place: Value, words: Value) -> None:
    """Words of two halves, as two vectors of floats."""
    for i, value in enumerate(word_of_halves(b, words)):
        store(b, place, ROW_WORD * i, value, align=64)


class Q4_K(Layout):  # noqa: N801
    """w = d sc q - dmin m, with 6-bit sc and m for every 32 weights.

    Packed: d, dmin; for each round a word with sc of its two blocks and m of its two blocks; the words of the codes: of
    every eight, the low halves are one block, the high halves the next.
    """

    type = BlockType.Q4_K
    scales_at, bits_at = 2 * ROW_WORD, 6 * ROW_WORD
    codes_at = 6 * ROW_WORD
    bytes = codes_at + 32 * ROW_WORD
    alignment = 64
    bits = 4
    minima = 1
    leveled = True
    groups = 4
    blocks = 2
    raw_codes = 16

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Half d, half dmin, uint8 scales[12], uint8 qs[128]. Of the twelve bytes, 0-3 hold sc 0-3 and 4-7 m 0-3 in six
        bits; byte 8 + j the low four bits of sc 4 + j and of m 4 + j, whose upper two are the upper two of bytes j and
        4 + j.
        """
        halves, a, c, low = raw.columns(0, 4)
        store_halves(b, place, halves)
        scales = [mask(b, a, 0x3F3F3F3F), _upper(b, low, a)]
        minima = [mask(b, c, 0x3F3F3F3F), _upper(b, shift_right(b, low, 4), c)]
        for group in range(4):
            sc, m = scales[group // 2], minima[group // 2]
            if group % 2:
                word = b.or_(shift_right(b, sc, 16), mask(b, m, -0x10000))
            else:
                word = b.or_(mask(b, sc, 0xFFFF), shift_left(b, m, 16))
            store(b, place, self.scales_at + ROW_WORD * group, word, align=64)

    def pack_round(self, b: ir.IRBuilder, raw: RawRows, place: Value, group: Offset) -> None:
        """Eight words of codes."""
        target = step(b, place, add(b, multiply(b, group, 8 * ROW_WORD), self.codes_at))
        store_words(b, target, raw.columns(add(b, multiply(b, group, 32), self.raw_codes), 8))

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d sc and dmin m."""
        word = load(b, place, add(b, multiply(b, group, ROW_WORD), self.scales_at), WORDS, align=64)
        level, minimum_level = (twice(b, byte_of(b, word, index)) for index in (block, 2 + block))
        scale, minimum = (load(b, place, ROW_WORD * i, FLOATS, align=64) for i in range(2))
        return Scales([scale], [minimum], levels=level, minimum_levels=minimum_level)

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """The low or the high halves of a word."""
        pair = word(add(b, multiply(b, group, 8 * ROW_WORD), self.codes_at + ROW_WORD * number))
        return mask(b, shift_right(b, pair, 4 * block), 0x0F0F0F0F)


def _upper(b: ir.IRBuilder, low: Value, high: Value) -> Value:
    """Four bits of each byte and the upper two bits of another, as six."""
    return b.or_(mask(b, low, 0x0F0F0F0F), mask(b, shift_right(b, high, 2), 0x30303030))


class Q5_K(Q4_K):  # noqa: N801
    """As Q4_K with fifth bits, in eight words before the others: bit j of their bytes is of block j."""

    type = BlockType.Q5_K
    codes_at = 14 * ROW_WORD
    bytes = codes_at + 32 * ROW_WORD
    bits = 5
    raw_codes = 48
    raw_bits = 16

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Half d, half dmin, uint8 scales[12], uint8 qh[32], uint8 qs[128]."""
        super().pack(b, raw, place)
        store_words(b, step(b, place, self.bits_at), raw.columns(self.raw_bits, 8))

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """Four bits and the fifth."""
        bits = word(self.bits_at + ROW_WORD * number)
        bit = add(b, multiply(b, group, 2), block)
        fifth = shift_left(b, mask(b, shift_right(b, bits, bit), 0x01010101), 4)
        return b.or_(super().codes(b, word, group, block, number), fifth)


class Q6_K(Layout):  # noqa: N801
    """w = d sc (q - 32), with int8 sc for every 16 weights.

    Packed: d; four words of sc; for each round the words of the upper two bits of the codes, and those of the lower
    four bits, as in the file.
    """

    type = BlockType.Q6_K
    scales_at, rounds_at = ROW_WORD, 5 * ROW_WORD
    low_at = 8 * ROW_WORD  # in a round
    bytes = rounds_at + 48 * ROW_WORD
    alignment = 64
    bits = 6
    groups = 2
    blocks = 4
    halves = 2
    leveled = True
    offset = 32

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """uint8 ql[128], uint8 qh[64], int8 scales[16], half d. For l < 32, byte 64 h + 32 j + l of ql has the lower
        bits of weights 128 h + 32 j + l and 64 behind, and byte 32 h + l of qh from bit 2 s on the upper bits of weight
        128 h + 32 s + l.
        """
        store(b, place, 0, emit.half_to_float(b, raw.column(208, I16)), align=64)
        store_words(b, step(b, place, self.scales_at), raw.columns(192, 4))

    def pack_round(self, b: ir.IRBuilder, raw: RawRows, place: Value, group: Offset) -> None:
        """Half a block."""
        target = step(b, place, add(b, multiply(b, group, 24 * ROW_WORD), self.rounds_at))
        words = raw.columns(add(b, multiply(b, group, 32), 128), 8) + raw.columns(multiply(b, group, 64), 16)
        store_words(b, target, words)

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d sc of both halves of the 32 weights."""
        offset = add(b, multiply(b, group, 2 * ROW_WORD), self.scales_at + ROW_WORD * (block // 2))
        word = load(b, place, offset, WORDS, align=64)
        return Scales([load(b, place, 0, FLOATS, align=64)], levels=signed_bytes_of(b, word, block % 2))

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """Four bits and two."""
        start = add(b, multiply(b, group, 24 * ROW_WORD), self.rounds_at)
        high = word(add(b, start, ROW_WORD * number))
        low = word(add(b, start, self.low_at + ROW_WORD * (block % 2 * 8 + number)))
        low = mask(b, shift_right(b, low, block // 2 * 4), 0x0F0F0F0F)
        return b.or_(low, mask(b, shift_left(b, high, 4 - 2 * block), 0x30303030))


def half_and_part(b: ir.IRBuilder, group: Offset) -> tuple[Offset, Offset]:
    """A round's number divided by two, and the rest."""
    if isinstance(group, int):
        return divmod(group, 2)
    return b.lshr(group, i64(1)), b.and_(group, i64(1))


LAYOUTS: tuple[Layout, ...] = (Q4_K(), Q5_K(), Q6_K())
