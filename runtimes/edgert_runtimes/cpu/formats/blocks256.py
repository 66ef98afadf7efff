"""Layouts of the types with super-blocks of 256 weights: Q4_K, Q5_K and Q6_K. Their packed blocks are whole cache
lines. Blocks of the file: `block_q*_K` of ggml's `ggml-common.h`.
"""

from __future__ import annotations

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.quantized import Layout, Scales, Word
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
    shift_left,
    shift_right,
    store,
    word_of_halves,
)

BYTES = ir.VectorType(I8, LANES)


def bytes_as_words(b: ir.IRBuilder, place: Value, offset: Offset) -> Value:
    """Sixteen unsigned bytes, one per row, as words."""
    return b.zext(load(b, place, offset, BYTES, align=16), WORDS)


class Q4_K(Layout):  # noqa: N801
    """w = d sc q - dmin m, with 6-bit sc and m for every 32 weights.

    Packed: 64 bytes of words d | dmin; four rounds of three 16-byte planes of scales; 32 words of codes of 16 rows, the
    low halves of words 8 g … 8 g + 7 being block 2 g and the high halves block 2 g + 1. The planes of a round
    hold sc of its first block, sc of its second and m of its first in their low six bits; their upper two bits are bits
    0-1, 2-3 and 4-5 of m of the second.
    """

    type = BlockType.Q4_K
    scales_at = 64
    codes_at = 256
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
                store(b, place, self.codes_at + ROW_WORD * (start + i), word, align=64)

    def _pack_scales(self, b: ir.IRBuilder, place: Value, packed: list[Value]) -> None:
        """The twelve bytes, as words of 16 rows: bytes 0-3 hold sc 0-3 and bytes 4-7 m 0-3 in six bits; byte 8 + j the
        low four bits of sc 4 + j and of m 4 + j, whose upper two are the upper two of bytes j and 4 + j.
        """
        a, c, low = packed
        scales = [mask(b, a, 0x3F3F3F3F), _upper(b, low, a)]
        minima = [mask(b, c, 0x3F3F3F3F), _upper(b, shift_right(b, low, 4), c)]
        for group in range(4):
            shift = 16 * (group % 2)
            words, mins = (shift_right(b, v[group // 2], shift) for v in (scales, minima))
            second = mask(b, shift_right(b, mins, 8), 63)
            values = [mask(b, words, 63), mask(b, shift_right(b, words, 8), 63), mask(b, mins, 63)]
            for plane, value in enumerate(values):
                upper = shift_left(b, mask(b, shift_right(b, second, 2 * plane), 3), 6)
                byte = b.trunc(b.or_(value, upper), BYTES)
                store(b, place, self.scales_at + 48 * group + 16 * plane, byte, align=16)

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d sc and dmin m."""
        scale, minimum = word_of_halves(b, load(b, place, 0, WORDS, align=64))
        start = add(b, multiply(b, group, 48), self.scales_at)
        planes = [bytes_as_words(b, place, add(b, start, 16 * i)) for i in range(3)]
        if block == 0:
            level = mask(b, planes[2], 63)
        else:
            upper = [shift_left(b, shift_right(b, plane, 6), 2 * i) for i, plane in enumerate(planes)]
            level = b.or_(b.or_(upper[0], upper[1]), upper[2])
        factor = b.fmul(scale, b.sitofp(mask(b, planes[block], 63), FLOATS))
        return Scales([factor], b.fmul(minimum, b.sitofp(level, FLOATS)))

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, step: int) -> Value:
        """The low or the high halves of a word."""
        pair = word(add(b, multiply(b, group, 8 * ROW_WORD), self.codes_at + ROW_WORD * step))
        return mask(b, shift_right(b, pair, 4 * block), 0x0F0F0F0F)


def _upper(b: ir.IRBuilder, low: Value, high: Value) -> Value:
    """Four bits of each byte and the upper two bits of another, as six."""
    return b.or_(mask(b, low, 0x0F0F0F0F), mask(b, shift_right(b, high, 2), 0x30303030))


class Q5_K(Q4_K):  # noqa: N801
    """As Q4_K with fifth bits, in eight more words of 16 rows: bit j of word g's byte i belongs to code 4 g + i of the
    j-th block of 32.
    """

    type = BlockType.Q5_K
    bits_at = 2304
    bytes = 2816
    bits = 5
    raw_codes = 48
    raw_bits = 16

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Half d, half dmin, uint8 scales[12], uint8 qh[32], uint8 qs[128]."""
        super().pack(b, raw, place)
        for i, word in enumerate(raw.columns(self.raw_bits, 8)):
            store(b, place, self.bits_at + ROW_WORD * i, word, align=64)

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, step: int) -> Value:
        """Four bits, and the fifth from bit 2 group + block."""
        bits = shift_right(b, word(self.bits_at + ROW_WORD * step), multiply(b, group, 2))
        fifth = mask(b, shift_left(b, bits, 4 - block), 0x10101010)
        return b.or_(super().codes(b, word, group, block, step), fifth)


class Q6_K(Layout):  # noqa: N801
    """w = d sc (q - 32), with int8 sc for every 16 weights.

    Packed: 64 bytes of float d; 16 planes of 16 int8 scales; 32 words of 16 rows with the low four bits of the
    codes and 16 words with the upper two. Weight 128 h + 32 s + 4 g + i has its low bits in byte i of word
    16 h + 8 (s % 2) + g (the low half for s < 2), and its upper ones in bits 2 s, 2 s + 1 of byte i of word 8 h + g.
    """

    type = BlockType.Q6_K
    scales_at = 64
    low_at = 320
    high_at = 2368
    bytes = 3392
    bits = 6
    groups = 8
    halves = 2
    offset_bits = 5

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """uint8 ql[128], uint8 qh[64], int8 scales[16], half d."""
        store(b, place, 0, emit.half_to_float(b, raw.column(208, I16)), align=64)
        for i, word in enumerate(raw.columns(192, 4)):
            for j in range(4):
                byte = b.trunc(shift_right(b, word, 8 * j), BYTES)
                store(b, place, self.scales_at + 16 * (4 * i + j), byte, align=16)
        for start, target in ((0, self.low_at), (64, self.low_at + 1024), (128, self.high_at)):
            for i, word in enumerate(raw.columns(start, 16)):
                store(b, place, target + ROW_WORD * i, word, align=64)

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d sc of both halves of the 32 weights."""
        scale = load(b, place, 0, FLOATS, align=64)
        start = add(b, multiply(b, group, 32), self.scales_at)
        factors = [b.sext(load(b, place, add(b, start, 16 * i), BYTES, align=16), WORDS) for i in range(2)]
        return Scales([b.fmul(scale, b.sitofp(factor, FLOATS)) for factor in factors])

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, step: int) -> Value:
        """Four bits and two; round 4 h + s has the weights from 128 h + 32 s on."""
        h, s = b.lshr(group, i64(2)), b.and_(group, i64(3))
        eight_words = b.add(b.shl(h, i64(1)), b.and_(s, i64(1)))
        low = word(add(b, multiply(b, eight_words, 8 * ROW_WORD), self.low_at + ROW_WORD * step))
        high = word(add(b, multiply(b, h, 8 * ROW_WORD), self.high_at + ROW_WORD * step))
        low = mask(b, shift_right(b, low, b.shl(b.lshr(s, i64(1)), i64(2))), 0x0F0F0F0F)
        high = mask(b, shift_left(b, shift_right(b, high, b.shl(s, i64(1))), 4), 0x30303030)
        return b.or_(low, high)


LAYOUTS: tuple[Layout, ...] = (Q4_K(), Q5_K(), Q6_K())
