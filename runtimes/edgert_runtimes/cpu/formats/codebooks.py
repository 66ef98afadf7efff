"""Layouts of the types whose weights come in groups out of a grid: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and
IQ3_S.

The grids are looked up when weights are packed: a panel holds codes of single weights, two to four bits each, so that
it is larger than the rows of the file. Blocks of the file: `block_iq*` of ggml's `ggml-common.h`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.blocks256 import twice
from edgert_runtimes.cpu.formats.grids import Grid, spread_signs, with_parity
from edgert_runtimes.cpu.formats.layout import Scales, Word
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.storage import FourBits, ThreeBits, TwoBits, Words, join_bits
from edgert_runtimes.cpu.formats.vectors import (
    FLOATS,
    HALVES,
    I8,
    I16,
    ROW_WORD,
    SHORTS,
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
    store,
)

Read = tuple[Sequence[Value], Sequence[Value]]
"""Of 32 weights: eight words of codes, and one or two levels of four bits."""


class Codebook(Words):
    """w = d (2 sc + 1) unit (q - offset), with sc for every 32 weights or every 16.

    Packed: 16 halves d; for every round a word with two sc, of its two blocks or of the halves of its one; codes.
    `read` takes them out of the file: 32 weights at a time.
    """

    unit: float
    scales_at = 32
    grid: Grid
    leveled = True
    slow = True

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Round after round."""
        store(b, place, 0, self.read_scale(b, raw), align=32)
        with emit.loop(b, i64(self.groups)) as rounds:
            levels: list[Value] = []
            for block in range(self.blocks):
                steps, sc = self.read(b, raw, add(b, multiply(b, rounds.index, self.blocks), block))
                self.store_codes(b, place, rounds.index, block, steps)
                levels += sc
            scales_at = add(b, multiply(b, rounds.index, ROW_WORD), self.scales_at)
            store(b, place, scales_at, join_bits(b, levels, 4), align=32)

    def read_scale(self, b: ir.IRBuilder, raw: RawRows) -> Value:
        """The half d."""
        return raw.column(0, I16)

    @abstractmethod
    def read(self, b: ir.IRBuilder, raw: RawRows, number: Value) -> Read:
        """The 32 weights `number` of a block of the file."""

    def plane(self, b: ir.IRBuilder, place: Value, group: Offset) -> Value:
        """Two levels of a round, as words."""
        return load(b, place, add(b, multiply(b, group, ROW_WORD), self.scales_at), WORDS, align=32)

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d (2 sc + 1) unit."""
        scale = emit.half_to_float(b, load(b, place, 0, HALVES, align=32))
        scale = b.fmul(scale, emit.real(self.unit, FLOATS))
        plane = self.plane(b, place, group)
        if self.halves == 2:
            return Scales([scale], levels=odd_numbers(b, mask(b, b.or_(plane, shift_left(b, plane, 12)), 0x000F000F)))
        level = mask(b, shift_right(b, plane, 4 * block), 15)
        return Scales([scale], levels=odd_numbers(b, twice(b, level)))


def odd_numbers(b: ir.IRBuilder, levels: Value) -> Value:
    """2 sc + 1, twice in each word."""
    return b.or_(shift_left(b, levels, 1), same(levels, 0x00010001))


def in_byte(b: ir.IRBuilder, word: Value, index: int) -> Value:
    """A byte of each word, as a word."""
    return mask(b, shift_right(b, word, 8 * index), 0xFF)


class IQ2(Codebook, ThreeBits):
    """Magnitudes 8, 25 and 43; the upper bit of a code is the sign."""

    unit = 1 / 8
    table = tuple(sign * value for sign in (1, -1) for value in (8, 25, 43, 0))
    codes_at = 32 + 4 * ROW_WORD
    bytes = codes_at + 8 * 3 * ROW_WORD
    groups = 4
    blocks = 2

    def signed(self, b: ir.IRBuilder, indices: Sequence[Value], signs: Sequence[Value]) -> list[Value]:
        """The codes for four indices, with eight signs each."""
        steps = []
        for index, bits in zip(indices, signs, strict=True):
            for i, word in enumerate(self.grid.look_up(b, index)):
                negative = spread_signs(b, shift_right(b, bits, 4 * i))
                steps.append(b.or_(word, shift_left(b, negative, 2)))
        return steps


class IQ2_XXS(IQ2):  # noqa: N801
    """256 entries of eight, sc for 32 weights."""

    type = BlockType.IQ2_XXS
    grid = Grid(BlockType.IQ2_XXS)

    def read(self, b: ir.IRBuilder, raw: RawRows, number: Value) -> Read:
        """Half d, then for 32 weights each uint8 index[4], uint32 of four times seven signs and sc."""
        index, rest = raw.columns(add(b, multiply(b, number, 8), 2), 2)
        indices = [in_byte(b, index, i) for i in range(4)]
        signs = [with_parity(b, shift_right(b, rest, 7 * i)) for i in range(4)]
        return self.signed(b, indices, signs), [shift_right(b, rest, 28)]


class IQ2_XS(IQ2):  # noqa: N801
    """512 entries of eight, sc for 16 weights."""

    type = BlockType.IQ2_XS
    grid = Grid(BlockType.IQ2_XS)
    codes_at = 32 + 8 * ROW_WORD
    bytes = codes_at + 8 * 3 * ROW_WORD
    groups = 8
    blocks = 1
    halves = 2

    def read(self, b: ir.IRBuilder, raw: RawRows, number: Value) -> Read:
        """Half d, uint16 qs[32] of nine bits of index and seven signs, uint8 scales[8] of two sc each."""
        pairs = raw.columns(add(b, multiply(b, number, 8), 2), 2)
        words = [shift_right(b, pair, shift) for pair in pairs for shift in (0, 16)]
        indices = [mask(b, word, 511) for word in words]
        signs = [with_parity(b, shift_right(b, word, 9)) for word in words]
        return self.signed(b, indices, signs), self.two_scales(b, raw, add(b, number, 66))

    def two_scales(self, b: ir.IRBuilder, raw: RawRows, offset: Offset) -> list[Value]:
        """The halves of a byte."""
        plane = b.zext(raw.column(offset, I8), WORDS)
        return [mask(b, plane, 15), shift_right(b, plane, 4)]


class IQ2_S(IQ2_XS):  # noqa: N801
    """1024 entries of eight, sc for 16 weights."""

    type = BlockType.IQ2_S
    grid = Grid(BlockType.IQ2_S)

    def read(self, b: ir.IRBuilder, raw: RawRows, number: Value) -> Read:
        """Half d, uint8 qs[32], uint8 signs[32], uint8 qh[8] of four times the two upper bits of an index, uint8
        scales[8] of two sc each.
        """
        low, negative = (raw.column(add(b, multiply(b, number, 4), at)) for at in (2, 34))
        high = b.zext(raw.column(add(b, number, 66), I8), WORDS)
        upper = [shift_left(b, mask(b, shift_right(b, high, 2 * i), 3), 8) for i in range(4)]
        indices = [b.or_(in_byte(b, low, i), upper[i]) for i in range(4)]
        signs = [in_byte(b, negative, i) for i in range(4)]
        return self.signed(b, indices, signs), self.two_scales(b, raw, add(b, number, 74))


class IQ3_XXS(Codebook, FourBits):  # noqa: N801
    """256 entries of four, sc for 32 weights; magnitudes 4, 12, … 52, 62, in a table of half the size. The upper bit of
    a code is the sign.
    """

    type = BlockType.IQ3_XXS
    grid = Grid(BlockType.IQ3_XXS)
    unit = 1 / 2
    table = tuple(sign * value for sign in (1, -1) for value in (2, 6, 10, 14, 18, 22, 26, 31))
    codes_at = 32 + 4 * ROW_WORD
    bytes = codes_at + 8 * 4 * ROW_WORD
    groups = 4
    blocks = 2

    def read(self, b: ir.IRBuilder, raw: RawRows, number: Value) -> Read:
        """Half d, uint8 qs[64], for 32 weights each a uint32 of four times seven signs and sc."""
        index = raw.columns(add(b, multiply(b, number, 8), 2), 2)
        rest = raw.column(add(b, multiply(b, number, 4), 66))
        steps = []
        for i in range(8):
            signs = shift_right(b, with_parity(b, shift_right(b, rest, i // 2 * 7)), i % 2 * 4)
            (word,) = self.grid.look_up(b, in_byte(b, index[i // 4], i % 4))
            steps.append(b.or_(word, shift_left(b, spread_signs(b, signs), 3)))
        return steps, [shift_right(b, rest, 28)]


class IQ3_S(Codebook, FourBits):  # noqa: N801
    """512 entries of four, sc for 32 weights; magnitudes 1, 3, … 15. Codes are (w + 15) / 2, multiplied in double."""

    type = BlockType.IQ3_S
    grid = Grid(BlockType.IQ3_S)
    unit = 1.0
    bits = 5
    offset = 15
    codes_at = 32 + 4 * ROW_WORD
    bytes = codes_at + 8 * 4 * ROW_WORD
    groups = 4
    blocks = 2

    def read(self, b: ir.IRBuilder, raw: RawRows, number: Value) -> Read:
        """Half d, uint8 qs[64], uint8 qh[8] of upper bits of indices, uint8 signs[32], uint8 scales[4] of two sc."""
        low = raw.columns(add(b, multiply(b, number, 8), 2), 2)
        high = b.zext(raw.column(add(b, number, 66), I8), WORDS)
        signs = raw.column(add(b, multiply(b, number, 4), 74))
        steps = []
        for i in range(8):
            upper = shift_left(b, mask(b, shift_right(b, high, i), 1), 8)
            (word,) = self.grid.look_up(b, b.or_(in_byte(b, low[i // 4], i % 4), upper))
            negative = spread_signs(b, shift_right(b, signs, 4 * i))
            # 8 + m for 2 m + 1, and 7 - m for the negative one: the same with all four bits flipped.
            flip = b.sub(shift_left(b, negative, 4), negative)
            steps.append(b.xor(b.or_(word, same(word, 0x08080808)), flip))
        plane = b.zext(raw.column(add(b, b.lshr(number, i64(1)), 106), I8), WORDS)
        shift = multiply(b, b.and_(number, i64(1)), 4)
        return steps, [mask(b, shift_right(b, plane, shift), 15)]

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """Twice the four bits."""
        high, index = divmod(number, 4)
        pair = word(add(b, self.block_at(b, group, block), ROW_WORD * index))
        return mask(b, shift_left(b, pair, 1 - 4 * high), 0x1E1E1E1E)


class IQ1_S(Codebook, TwoBits):  # noqa: N801
    """w = d (2 sc + 1) (q - 1 ± 1/8): 2048 entries of eight, -1, 0 or 1; three bits of sc and a sign, the fourth bit of
    a level, for 32 weights.
    """

    type = BlockType.IQ1_S
    grid = Grid(BlockType.IQ1_S)
    unit = 1.0
    offset = 1
    minima = 1
    codes_at = 32 + 4 * ROW_WORD
    bytes = codes_at + 8 * 2 * ROW_WORD
    groups = 4
    blocks = 2

    def read(self, b: ir.IRBuilder, raw: RawRows, number: Value) -> Read:
        """Half d, uint8 qs[32], for 32 weights each a uint16 of four times three upper bits of an index and a level."""
        low = raw.column(add(b, multiply(b, number, 4), 2))
        rest = b.zext(raw.column(add(b, multiply(b, number, 2), 34), I16), WORDS)
        steps: list[Value] = []
        for i in range(4):
            upper = shift_left(b, mask(b, shift_right(b, rest, 3 * i), 7), 8)
            steps += self.grid.look_up(b, b.or_(in_byte(b, low, i), upper))
        return steps, [shift_right(b, rest, 12)]

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d (2 sc + 1), and ± 1/8: the bits of -1/8 are those of 1/8 and the sign."""
        level = shift_right(b, self.plane(b, place, group), 4 * block)
        scale = emit.half_to_float(b, load(b, place, 0, HALVES, align=32))
        sign = mask(b, shift_right(b, level, 3), 1)
        shift = b.bitcast(b.or_(shift_left(b, sign, 31), same(sign, 0x3E000000)), FLOATS)
        levels = odd_numbers(b, twice(b, mask(b, level, 7)))
        # The minimum is -shift · level / d: minus the level where the sign is not set.
        signs = b.bitcast(twice(b, shift_left(b, sign, 1)), SHORTS)
        minima = b.mul(b.bitcast(levels, SHORTS), b.sub(signs, same(signs, 1)))
        return Scales([scale], [b.fmul(scale, emit.real(0.125, FLOATS))], shift, levels, b.bitcast(minima, WORDS))


class IQ1_M(Codebook, ThreeBits):  # noqa: N801
    """w = d (2 sc + 1) / 8 (8 (q - 1) ± 1): the entries of IQ1_S; sc for 16 weights and a sign for eight, which is the
    upper bit of their codes.
    """

    type = BlockType.IQ1_M
    grid = Grid(BlockType.IQ1_M)
    unit = 1 / 8
    table = tuple(8 * (q - 1) + shift for shift in (1, -1) for q in (0, 1, 2, 1))
    codes_at = 32 + 8 * ROW_WORD
    bytes = codes_at + 8 * 3 * ROW_WORD
    groups = 8
    halves = 2

    def read_scale(self, b: ir.IRBuilder, raw: RawRows) -> Value:
        """Four bits in each of the four numbers of scales, lowest first."""
        result = None
        for i, word in enumerate(raw.columns(48, 4, I16)):
            part = b.shl(b.lshr(word, same(word, 12)), same(word, 4 * i))
            result = part if result is None else b.or_(result, part)
        return result

    def read(self, b: ir.IRBuilder, raw: RawRows, number: Value) -> Read:
        """uint8 qs[32], uint8 qh[16] of two times three upper bits of an index and a sign, uint16 scales[4] of four
        times three bits of sc.
        """
        low = raw.column(multiply(b, number, 4))
        rest = b.zext(raw.column(add(b, multiply(b, number, 2), 32), I16), WORDS)
        steps = []
        for i in range(4):
            bits = shift_right(b, rest, 4 * i)
            index = b.or_(in_byte(b, low, i), shift_left(b, mask(b, bits, 7), 8))
            sign = b.mul(mask(b, shift_right(b, bits, 3), 1), same(bits, 0x04040404))
            steps += [b.or_(word, sign) for word in self.grid.look_up(b, index)]
        pair = b.zext(raw.column(add(b, multiply(b, b.lshr(number, i64(1)), 2), 48), I16), WORDS)
        pair = shift_right(b, pair, multiply(b, b.and_(number, i64(1)), 6))
        return steps, [mask(b, shift_right(b, pair, 3 * i), 7) for i in range(2)]


LAYOUTS: tuple[Words, ...] = (IQ1_S(), IQ1_M(), IQ2_XXS(), IQ2_XS(), IQ2_S(), IQ3_XXS(), IQ3_S())
