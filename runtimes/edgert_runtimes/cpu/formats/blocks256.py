"""Layouts of the types with super-blocks of 256 weights: Q4_K, Q5_K and Q6_K. Their packed blocks are whole cache
lines. Blocks of the file: `block_q*_K` of ggml's `ggml-common.h`.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.layout import Layout, Scales, Word
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import (
    FLOATS,
    HALVES,
    I8,
    I16,
    ROW_WORD,
    WORDS,
    Offset,
    Value,
    add,
    load,
    mask,
    multiply,
    shift_left,
    shift_right,
    store,
    word_of_halves,
)

BYTES = ir.VectorType(I8, LANES)


def bytes_as_words(b: ir.IRBuilder, place: Value, offset: Offset) -> Value:
    """Sixteen unsigned bytes, one per row, as words."""
    return b.zext(load(b, place, offset, BYTES, align=16), WORDS)


SIXES = 48
"""Bytes of four numbers of six bits of 16 rows: three planes of bytes with one number each in the low six bits and two
bits of the fourth above them, its lowest first.
"""


def store_sixes(b: ir.IRBuilder, place: Value, start: Offset, values: Sequence[Value]) -> None:
    """Store four numbers; bits beyond the sixth are ignored."""
    for plane, value in enumerate(values[:3]):
        fourth = mask(b, shift_left(b, values[3], 6 - 2 * plane), 0xC0)
        byte = b.trunc(b.or_(mask(b, value, 63), fourth), BYTES)
        store(b, place, add(b, start, LANES * plane), byte, align=16)


def six(b: ir.IRBuilder, place: Value, start: Offset, index: int) -> Value:
    """One of four numbers, as words."""
    if index < 3:
        return mask(b, bytes_as_words(b, place, add(b, start, LANES * index)), 63)
    planes = [shift_right(b, bytes_as_words(b, place, add(b, start, LANES * i)), 6) for i in range(3)]
    return b.or_(b.or_(planes[0], shift_left(b, planes[1], 2)), shift_left(b, planes[2], 4))


def bytes_as_halves(b: ir.IRBuilder, place: Value, offset: Offset, *, signed: bool = False) -> Value:
    """Two bytes per row, as two 16-bit numbers in a word."""
    pairs = load(b, place, offset, ir.VectorType(I8, 2 * LANES), align=16)
    wide = ir.VectorType(I16, 2 * LANES)
    return b.bitcast(b.sext(pairs, wide) if signed else b.zext(pairs, wide), WORDS)


class Q4_K(Layout):  # noqa: N801
    """w = d sc q - dmin m, with 6-bit sc and m for every 32 weights.

    Packed: 64 bytes of words d | dmin; four rounds of `sixes`: sc of two blocks, m of two blocks; 32 words of codes of
    16 rows, the low halves of words 8 g … 8 g + 7 being block 2 g and the high halves block 2 g + 1.
    """

    type = BlockType.Q4_K
    scales_at = 64
    rounds_at = 256
    words = 8
    """Of 16 rows, in a round; the last eight are the codes."""
    bytes = 2304
    bits = 4
    groups = 4
    blocks = 2
    raw_codes = 16

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Half d, half dmin, uint8 scales[12], uint8 qs[128]."""
        halves, *packed = raw.columns(0, 4)
        store(b, place, 0, halves, align=64)
        self._pack_scales(b, place, packed)
        for start in (0, 16):
            for i, word in enumerate(raw.columns(self.raw_codes + 4 * start, 16)):
                group, step = divmod(start + i, 8)
                store(b, place, self.round_at(b, group) + ROW_WORD * (self.words - 8 + step), word, align=64)

    def round_at(self, b: ir.IRBuilder, group: Offset) -> Offset:
        """Where the words of a round start."""
        return add(b, multiply(b, group, self.words * ROW_WORD), self.rounds_at)

    def _pack_scales(self, b: ir.IRBuilder, place: Value, packed: list[Value]) -> None:
        """The twelve bytes, as words of 16 rows: bytes 0-3 hold sc 0-3 and bytes 4-7 m 0-3 in six bits; byte 8 + j the
        low four bits of sc 4 + j and of m 4 + j, whose upper two are the upper two of bytes j and 4 + j.
        """
        a, c, low = packed
        scales = [mask(b, a, 0x3F3F3F3F), _upper(b, low, a)]
        minima = [mask(b, c, 0x3F3F3F3F), _upper(b, shift_right(b, low, 4), c)]
        for group in range(4):
            words, mins = (shift_right(b, v[group // 2], 16 * (group % 2)) for v in (scales, minima))
            values = [words, shift_right(b, words, 8), mins, shift_right(b, mins, 8)]
            store_sixes(b, place, self.scales_at + SIXES * group, values)

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d sc and dmin m."""
        scale, minimum = word_of_halves(b, load(b, place, 0, WORDS, align=64))
        start = add(b, multiply(b, group, SIXES), self.scales_at)
        factor = b.fmul(scale, b.sitofp(six(b, place, start, block), FLOATS))
        level = six(b, place, start, 2 + block)
        return Scales([factor], [b.fmul(minimum, b.sitofp(level, FLOATS))])

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, step: int) -> Value:
        """The low or the high halves of a word."""
        pair = word(add(b, self.round_at(b, group), ROW_WORD * (self.words - 8 + step)))
        return mask(b, shift_right(b, pair, 4 * block), 0x0F0F0F0F)


def _upper(b: ir.IRBuilder, low: Value, high: Value) -> Value:
    """Four bits of each byte and the upper two bits of another, as six."""
    return b.or_(mask(b, low, 0x0F0F0F0F), mask(b, shift_right(b, high, 2), 0x30303030))


class Q5_K(Q4_K):  # noqa: N801
    """As Q4_K with fifth bits, in two words of 16 rows before the eight words of each round: bit 2 q + j of byte i of
    the p-th belongs to code 4 (4 p + q) + i of the round's block j.
    """

    type = BlockType.Q5_K
    words = 10
    bytes = 2816
    bits = 5
    raw_codes = 48
    raw_bits = 16

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Half d, half dmin, uint8 scales[12], uint8 qh[32], uint8 qs[128]; bit j of a byte of qh is of block j."""
        super().pack(b, raw, place)
        bits = raw.columns(self.raw_bits, 8)
        for group in range(4):
            pairs = [mask(b, shift_right(b, word, 2 * group), 0x03030303) for word in bits]
            for p in range(2):
                word = pairs[4 * p]
                for q in range(1, 4):
                    word = b.or_(word, shift_left(b, pairs[4 * p + q], 2 * q))
                store(b, place, self.round_at(b, group) + ROW_WORD * p, word, align=64)

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, step: int) -> Value:
        """Four bits and the fifth."""
        p, q = divmod(step, 4)
        bits = word(add(b, self.round_at(b, group), ROW_WORD * p))
        fifth = mask(b, shift_left(b, bits, 4 - 2 * q - block), 0x10101010)
        return b.or_(super().codes(b, word, group, block, step), fifth)


class Q6_K(Layout):  # noqa: N801
    """w = d sc (q - 32), with int8 sc for every 16 weights.

    Packed: 64 bytes of float d, then four rounds of two blocks of 32: two int8 scales of 16 rows for each, 4 words of
    16 rows with the upper two bits of the codes and 8 words with the lower four, of the first block in the low halves.
    Bits 4 v + 2 j and above of the g-th upper word's byte i belong to code 4 (4 v + g) + i of block j.
    """

    type = BlockType.Q6_K
    round_at, round_bytes = 64, 832
    high_at, low_at = 64, 64 + 4 * ROW_WORD  # in a round
    bytes = round_at + 4 * round_bytes
    bits = 6
    groups = 4
    blocks = 2
    halves = 2
    offset = 32

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """uint8 ql[128], uint8 qh[64], int8 scales[16], half d. For l < 32, byte 64 h + 32 j + l of ql has the lower
        bits of weights 128 h + 32 j + l and 64 behind, and byte 32 h + l of qh from bit 2 s on the upper bits of weight
        128 h + 32 s + l.
        """
        store(b, place, 0, emit.half_to_float(b, raw.column(208, I16)), align=64)
        scales, high = raw.columns(192, 4), raw.columns(128, 16)
        for group in range(4):
            h, p = divmod(group, 2)
            start = self.round_at + group * self.round_bytes
            for i in range(2):
                pair = b.trunc(shift_right(b, scales[group], 16 * i), HALVES)
                store(b, place, start + 2 * LANES * i, pair, align=32)
            upper = [mask(b, shift_right(b, word, 4 * p), 0x0F0F0F0F) for word in high[8 * h : 8 * h + 8]]
            for g in range(4):
                word = b.or_(upper[g], shift_left(b, upper[4 + g], 4))
                store(b, place, start + self.high_at + ROW_WORD * g, word, align=64)
            low = [mask(b, shift_right(b, word, 4 * p), 0x0F0F0F0F) for word in raw.columns(64 * h, 16)]
            for g in range(8):
                word = b.or_(low[g], shift_left(b, low[8 + g], 4))
                store(b, place, start + self.low_at + ROW_WORD * g, word, align=64)

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d sc of both halves of the 32 weights."""
        scale = load(b, place, 0, FLOATS, align=64)
        start = add(b, multiply(b, group, self.round_bytes), self.round_at + 2 * LANES * block)
        return Scales([scale], levels=bytes_as_halves(b, place, start, signed=True))

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, step: int) -> Value:
        """Four bits and two."""
        start = add(b, multiply(b, group, self.round_bytes), self.round_at)
        v, g = divmod(step, 4)
        high = shift_left(b, word(add(b, start, self.high_at + ROW_WORD * g)), 4 - 4 * v - 2 * block)
        low = shift_right(b, word(add(b, start, self.low_at + ROW_WORD * step)), 4 * block)
        return b.or_(mask(b, low, 0x0F0F0F0F), mask(b, high, 0x30303030))


LAYOUTS: tuple[Layout, ...] = (Q4_K(), Q5_K(), Q6_K())
