"""Layouts of the types with codes of one, two or three bits: Q1_0, Q2_0, Q2_K, Q3_K, TQ1_0 and TQ2_0.

Blocks of the file: `block_q*` and `block_tq*` of ggml's `ggml-common.h`.
"""

from __future__ import annotations

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.blocks32 import spread_by_step
from edgert_runtimes.cpu.formats.blocks256 import bytes_of, store_halves
from edgert_runtimes.cpu.formats.layout import STEPS, Layout, Scales, Word, store_words
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.storage import TwoBits
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
    same,
    shift_left,
    shift_right,
    step,
    store,
)


def file_pairs(b: ir.IRBuilder, raw: RawRows, start: int, block: int) -> list[Value]:
    """The two-bit codes of the 32 weights `block` of 256, in the low bits of bytes with other bits above: bits 2 s and
    2 s + 1 of byte 32 h + l belong to weight 128 h + 32 s + l.
    """
    h, s = divmod(block, 4)
    return [shift_right(b, word, 2 * s) for word in raw.columns(start + 32 * h, STEPS)]


class Q2_K(Layout):  # noqa: N801
    """w = d sc q - dmin m, with 4-bit sc and m for every 16 weights.

    Packed: d, dmin; four words whose bytes have sc in the low and m in the high halves; codes as in the file.
    """

    type = BlockType.Q2_K
    scales_at, codes_at = 2 * ROW_WORD, 6 * ROW_WORD
    raw_codes = 16
    bytes = codes_at + 16 * ROW_WORD
    bits = 2
    minima = 1
    groups = 2
    blocks = 4
    halves = 2
    leveled = True

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """uint8 scales[16], uint8 qs[64], half d, half dmin."""
        store_halves(b, place, raw.column(80))
        store_words(b, step(b, place, self.scales_at), raw.columns(0, 4))

    def pack_round(self, b: ir.IRBuilder, raw: RawRows, place: Value, group: Offset) -> None:
        """Half of the codes: bits 2 s and 2 s + 1 of byte 32 h + l belong to weight 128 h + 32 s + l."""
        target = step(b, place, add(b, multiply(b, group, 8 * ROW_WORD), self.codes_at))
        store_words(b, target, raw.columns(add(b, multiply(b, group, 32), self.raw_codes), 8))

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d sc and dmin m of both halves."""
        scale, minimum = (load(b, place, ROW_WORD * i, FLOATS, align=32) for i in range(2))
        pairs = bytes_of(b, self._level_word(b, place, group, block), block % 2)
        levels, minima = mask(b, pairs, 0x000F000F), mask(b, shift_right(b, pairs, 4), 0x000F000F)
        return Scales([scale], [minimum], levels=levels, minimum_levels=minima)

    def _level_word(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Value:
        """Four bytes of scales, of which two are those of the block."""
        offset = add(b, multiply(b, group, 2 * ROW_WORD), self.scales_at + ROW_WORD * (block // 2))
        return load(b, place, offset, WORDS, align=32)

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """Two bits of every byte."""
        pairs = word(add(b, multiply(b, group, 8 * ROW_WORD), self.codes_at + ROW_WORD * number))
        return mask(b, shift_right(b, pairs, 2 * block), 0x03030303)


class Q3_K(Q2_K):  # noqa: N801
    """w = d (sc - 32) (q - 4), with 6-bit sc for every 16 weights.

    Packed: d; four words of sc; eight words of the upper bits of the codes; their lower bits; both as in the file.
    """

    type = BlockType.Q3_K
    scales_at, bits_at, codes_at = ROW_WORD, 5 * ROW_WORD, 13 * ROW_WORD
    raw_codes = 32
    bytes = codes_at + 16 * ROW_WORD
    bits = 3
    minima = 0
    offset = 4

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """uint8 hmask[32], uint8 qs[64], uint8 scales[12], half d. Bit i of byte l of hmask belongs to weight 32 i + l.
        The low halves of scale bytes 0-7 are the low bits of scales 0-7, the high halves those of scales 8-15; bits 2 g
        and 2 g + 1 of byte 8 + i are the upper bits of scale 4 g + i.
        """
        store(b, place, 0, emit.half_to_float(b, raw.column(108, I16)), align=32)
        *low, upper = (raw.column(96 + 4 * i) for i in range(3))
        for group in range(4):
            bits = mask(b, shift_right(b, low[group % 2], 4 * (group // 2)), 0x0F0F0F0F)
            bits = b.or_(bits, shift_left(b, mask(b, shift_right(b, upper, 2 * group), 0x03030303), 4))
            store(b, place, self.scales_at + ROW_WORD * group, bits, align=32)
        store_words(b, step(b, place, self.bits_at), raw.columns(0, 8))

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d (sc - 32) of both halves."""
        pairs = bytes_of(b, self._level_word(b, place, group, block), block % 2)
        numbers = b.bitcast(pairs, ir.VectorType(I16, 2 * LANES))
        levels = b.bitcast(b.sub(numbers, same(numbers, 32)), WORDS)
        return Scales([load(b, place, 0, FLOATS, align=32)], levels=levels)

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """Two bits and one."""
        bits = word(self.bits_at + ROW_WORD * number)
        upper = mask(b, shift_right(b, bits, add(b, multiply(b, group, 4), block)), 0x01010101)
        return b.or_(super().codes(b, word, group, block, number), shift_left(b, upper, 2))


class Ternary(TwoBits):
    """w = d (q - 1). Packed: 16 halves d; codes."""

    codes_at = 32
    offset = 1

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d."""
        return Scales([emit.half_to_float(b, load(b, place, 0, HALVES, align=32))])


class TQ2_0(Ternary):  # noqa: N801
    """Ternary; two bits for a weight in the file too."""

    type = BlockType.TQ2_0
    bytes = 32 + 8 * 2 * ROW_WORD
    groups = 4
    blocks = 2

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """uint8 qs[64], half d."""
        store(b, place, 0, raw.column(64, I16), align=32)
        for block in range(8):
            self.store_codes(b, place, block // 2, block % 2, file_pairs(b, raw, 0, block))


class TQ1_0(TQ2_0):  # noqa: N801
    """Ternary; five weights a byte in the file."""

    type = BlockType.TQ1_0

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """uint8 qs[48], uint8 qh[4], half d. A byte v holds weights as the digits of v / 256 to the base 3: the n-th is
        that of (3^n v mod 256) / 256. Digit n of byte l < 32 is weight 32 n + l, of byte 32 + l weight 160 + 16 n + l,
        of byte 48 + l weight 240 + 4 n + l.
        """
        store(b, place, 0, raw.column(52, I16), align=32)
        columns = [*raw.columns(0, 8), *raw.columns(32, 4), raw.column(48)]
        digits = [self._digits(b, word) for word in columns]
        steps = [
            digits[i][n]
            for first, count in ((0, 8), (8, 4), (12, 1))
            for n in range(5)
            for i in range(first, first + count)
        ]
        for block in range(8):
            self.store_codes(b, place, block // 2, block % 2, steps[8 * block : 8 * block + 8])

    def _digits(self, b: ir.IRBuilder, word: Value) -> list[Value]:
        """Five digits of every byte."""
        v = b.bitcast(word, ir.VectorType(I8, 4 * LANES))
        digits = []
        for _ in range(5):
            steps = [b.sext(b.icmp_unsigned(">=", v, same(v, first)), v.type) for first in (86, 171)]
            digits.append(b.bitcast(b.neg(b.add(*steps)), WORDS))
            v = b.add(v, b.add(v, v))
        return digits


class Q2_0(Ternary):  # noqa: N801
    """w = d (q - 1), 64 weights."""

    type = BlockType.Q2_0
    bytes = 32 + 2 * 2 * ROW_WORD
    blocks = 2

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Half d, uint8 qs[16], four consecutive codes a byte: bytes and pairs of bits of a word change places."""
        store(b, place, 0, raw.column(0, I16), align=32)
        for i, word in enumerate(raw.columns(2, 4)):
            for distance, upper in ((6, 0x00CC00CC), (12, 0x0000F0F0)):
                moved = mask(b, b.xor(word, shift_right(b, word, distance)), upper)
                word = b.xor(word, b.xor(moved, shift_left(b, moved, distance)))
            store(b, place, self.codes_at + ROW_WORD * i, word, align=32)


class Q1_0(Ternary):  # noqa: N801
    """w = d (2 q - 1), 128 weights with codes of one bit.

    Packed: 16 halves d; a word of 16 rows for every 32 weights, bit g of its byte i being code 4 g + i.
    """

    type = BlockType.Q1_0
    bytes = 32 + 4 * ROW_WORD
    blocks = 4

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Half d, uint8 qs[16], eight consecutive codes a byte."""
        store(b, place, 0, raw.column(0, I16), align=32)
        for i, word in enumerate(raw.columns(2, 4)):
            store(b, place, self.codes_at + ROW_WORD * i, spread_by_step(b, word), align=32)

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """Twice the bit."""
        return mask(b, shift_left(b, word(self.codes_at + ROW_WORD * block), 1 - number), 0x02020202)


LAYOUTS: tuple[Layout, ...] = (Q1_0(), Q2_0(), Q2_K(), Q3_K(), TQ1_0(), TQ2_0())
