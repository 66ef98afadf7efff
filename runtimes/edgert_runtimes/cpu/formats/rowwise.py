"""One token by raw rows of types with super-blocks, four rows at a time, each on its own: for CPUs with 256-bit integer
vectors and without wider ones, where putting 16 rows side by side takes a third of the time.

Of a row, 32 weights fill a register. Their products with the inputs are added in pairs (vpmaddubsw), times level and
step (vpmaddwd), to eight sums that are added across at the end of a super-block. These are the integers of `leveled`,
and the floats follow in the same order: so are the results, bit for bit.

Levels of a super-block are kept as 16 16-bit numbers, those of the first halves of 32 weights before those of the
second, so that one vpshufb puts both where the products of their halves are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.activations import BLOCK, PARTS, SuperCodes
from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa.x86 import SHUFFLE, Avx2, signs_of
from edgert_runtimes.cpu.formats.leveled import LeveledBlocks
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.tables import IQ4_TABLE
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    I8,
    I16,
    I32,
    Offset,
    Value,
    fetch,
    fused,
    i64,
    join,
    load,
    mask,
    multiply,
    same,
    shift_left,
    shift_right,
    shuffle,
    split,
    step,
    store,
)

AT_ONCE = 4
"""Rows, whose sums are added across together."""

CODES = ir.VectorType(I8, BLOCK)
PAIRS = ir.VectorType(I16, LANES)
SUMS = ir.VectorType(I32, PARTS)
WORDS4 = ir.VectorType(I32, 4)
BYTES16 = ir.VectorType(I8, 16)
HALVES8 = ir.VectorType(I16, 8)
FLOATS4 = ir.VectorType(F32, AT_ONCE)


class Row(ABC):
    """How one type lies in the file. `place` is the pointer to a super-block of a row."""

    offset = 0
    """The codes are so much too large."""
    signed = False
    """They are signed bytes, out of a table."""

    def halves(self, number: int) -> Sequence[tuple[int, int]]:
        """Which 16 weights are in the halves of the vectors of `codes`: those of 32, and which half of them. Where they
        are not the first and the second, levels must be the same for both.
        """
        return (number, 0), (number, 1)

    @abstractmethod
    def levels(self, b: ir.IRBuilder, place: Value) -> tuple[Value, Value | None]:
        """Levels, and those of the minima: 16 16-bit numbers each, as the module says."""

    @abstractmethod
    def codes(self, b: ir.IRBuilder, place: Value) -> list[Value]:
        """Eight times 32 codes, a byte each."""

    @abstractmethod
    def factors(self, b: ir.IRBuilder, places: Sequence[Value]) -> list[Value]:
        """The factor of each row in a vector, and that of the minima if there are any."""


class RowQ4K(Row):
    """See `blocks256.Q4_K`."""

    codes_at = 16

    def levels(self, b: ir.IRBuilder, place: Value) -> tuple[Value, Value]:
        """Bytes 4-15, three words a, c and low, hold sixteen numbers of six bits as `blocks256.Q4_K.pack` says."""
        words = load(b, place, 0, WORDS4)
        outer, rest = shuffle(b, words, words, [1, 1, 2, 2]), shuffle(b, words, words, [3] * 4)
        low = b.and_(outer, _words(0x3F3F3F3F, 0, 0x3F3F3F3F, 0))
        upper = b.and_(shift_right(b, outer, 2), _words(0, 0x30303030, 0, 0x30303030))
        rest = b.and_(b.lshr(rest, _words(0, 0, 0, 4)), _words(0, 0x0F0F0F0F, 0, 0x0F0F0F0F))
        numbers = b.zext(b.bitcast(b.or_(b.or_(low, upper), rest), BYTES16), PAIRS)
        levels, minima = ([*range(first, first + PARTS)] * 2 for first in (0, PARTS))
        return shuffle(b, numbers, numbers, levels), shuffle(b, numbers, numbers, minima)

    def codes(self, b: ir.IRBuilder, place: Value) -> list[Value]:
        """Low and high halves, in turns."""
        result = []
        for i in range(PARTS // 2):
            result += _nibbles(b, load(b, place, self.codes_at + BLOCK * i, CODES))
        return result

    def factors(self, b: ir.IRBuilder, places: Sequence[Value]) -> list[Value]:
        """Pairs of halves."""
        pairs = _gather(b, places, 0, I32)
        kind = ir.VectorType(I16, AT_ONCE)
        return [emit.half_to_float(b, b.trunc(shift_right(b, pairs, shift), kind)) for shift in (0, 16)]


class RowQ5K(RowQ4K):
    """See `blocks256.Q5_K`."""

    codes_at = 48

    def codes(self, b: ir.IRBuilder, place: Value) -> list[Value]:
        """Bit j of byte l belongs to weight 32 j + l."""
        bits = b.bitcast(load(b, place, 16, CODES), PAIRS)
        result = []
        for j, low in enumerate(super().codes(b, place)):
            fifth = mask(b, b.bitcast(shift_left(b, bits, 4 - j), CODES), 0x10)
            result.append(b.or_(low, fifth))
        return result


class RowQ6K(Row):
    """See `blocks256.Q6_K`."""

    offset = 32

    def levels(self, b: ir.IRBuilder, place: Value) -> tuple[Value, None]:
        """Sixteen signed bytes."""
        numbers = load(b, place, 192, BYTES16)
        return b.sext(shuffle(b, numbers, numbers, [*range(0, 16, 2), *range(1, 16, 2)]), PAIRS), None

    def codes(self, b: ir.IRBuilder, place: Value) -> list[Value]:
        """Four bits of 64 bytes, then two of 32, for every 128 weights."""
        result = []
        for half in range(2):
            low = [_nibbles(b, load(b, place, 64 * half + BLOCK * i, CODES)) for i in range(2)]
            high = b.bitcast(load(b, place, 128 + BLOCK * half, CODES), PAIRS)
            for j in range(4):
                upper = mask(b, b.bitcast(shift_left(b, high, 4 - 2 * j), CODES), 0x30)
                result.append(b.or_(low[j % 2][j // 2], upper))
        return result

    def factors(self, b: ir.IRBuilder, places: Sequence[Value]) -> list[Value]:
        """Halves."""
        return [emit.half_to_float(b, _gather(b, places, 208, I16))]


class RowIQ4XS(Row):
    """See `tables.IQ4_XS`."""

    signed = True

    def levels(self, b: ir.IRBuilder, place: Value) -> tuple[Value, None]:
        """Four bits of each in a word, the upper two in a half."""
        eight = ir.VectorType(I32, PARTS)

        def spread(word: Value, bits: int, keep: int) -> Value:
            counts = ir.Constant(eight, [bits * i for i in range(PARTS)])
            return mask(b, b.lshr(emit.splat(b, word, PARTS), counts), keep)

        low = spread(load(b, place, 4, I32), 4, 15)
        high = spread(b.zext(load(b, place, 2, I16), I32), 2, 3)
        numbers = b.trunc(b.sub(b.or_(low, shift_left(b, high, 4)), same(low, 32)), HALVES8)
        return join(b, [numbers, numbers]), None

    def codes(self, b: ir.IRBuilder, place: Value) -> list[Value]:
        """Entries of the table: bytes j of 16 have code j in the low and code 16 + j in the high half."""
        entries = ir.Constant(CODES, [ir.Constant(I8, entry) for entry in IQ4_TABLE * 2])
        result = []
        for i in range(PARTS // 2):
            indices = _nibbles(b, load(b, place, 8 + BLOCK * i, CODES))
            result += [_shuffled(b, entries, each) for each in indices]
        return result

    def halves(self, number: int) -> Sequence[tuple[int, int]]:
        """Two times 32 weights take turns."""
        return [(number // 2 * 2 + i, number % 2) for i in range(2)]

    def factors(self, b: ir.IRBuilder, places: Sequence[Value]) -> list[Value]:
        """Halves."""
        return [emit.half_to_float(b, _gather(b, places, 0, I16))]


ROWS: dict[BlockType, Row] = {
    BlockType.Q4_K: RowQ4K(),
    BlockType.Q5_K: RowQ5K(),
    BlockType.Q6_K: RowQ6K(),
    BlockType.IQ4_XS: RowIQ4XS(),
}


class RowwiseBlocks(LeveledBlocks):
    """A type with super-blocks whose rows few tokens go through one by one."""

    streams = 3

    def emit_stream(
        self, b: ir.IRBuilder, raw: RawRows, ahead: Value, x: Value, y: Value, k: Value, lines: Value
    ) -> None:
        """See Matmul."""
        codes, row = self.codes, ROWS[self.type]
        portion = AT_ONCE * self.type.block_bytes
        with emit.loop(b, i64(LANES), step=AT_ONCE) as down:
            first = step(b, raw.first, b.mul(down.index, raw.stride))
            rows = [step(b, first, multiply(b, raw.stride, i) if i else 0) for i in range(AT_ONCE)]
            ahead = step(b, first, multiply(b, raw.stride, AT_ONCE))
            with emit.loop(b, self.blocks(b, k), emit.real(0.0, FLOATS4)) as each:
                fetch(b, step(b, ahead, b.mul(each.index, i64(portion))), portion)
                start = b.mul(each.index, i64(self.type.block_bytes))
                places = [step(b, place, start) for place in rows]
                inputs = step(b, x, b.mul(each.index, i64(codes.block_bytes)))
                sums = [_row_sums(b, row, codes, place, inputs) for place in places]
                scale = emit.splat(b, load(b, inputs, codes.scale, F32, align=4), AT_ONCE)
                total = each.values[0]
                for factor, parts in zip(row.factors(b, places), zip(*sums, strict=True), strict=True):
                    part = b.sitofp(_across(b, parts), FLOATS4)
                    total = fused(b, part, b.fmul(factor, scale), total)
                each.carry(total)
            store(b, step(b, y, b.shl(down.index, i64(2))), 0, each.values[0], align=4)


def _row_sums(b: ir.IRBuilder, row: Row, codes: SuperCodes, place: Value, x: Value) -> list[Value]:
    """Of a super-block of one row: eight sums whose sum is that of the products, and the same for the minima."""
    levels, minima = row.levels(b, place)
    sums = load(b, x, codes.row_sums, PAIRS)
    steps = load(b, x, codes.steps, HALVES8)
    weights = b.bitcast(b.mul(levels, join(b, [steps, steps])), CODES)
    total = None
    if row.offset:
        by_offset = _pairs_of_words(b, levels, sums)
        total = b.mul(by_offset, same(by_offset, row.offset))
    for i, weight_codes in enumerate(row.codes(b, place)):
        halves = row.halves(i)
        inputs = join(b, [load(b, x, BLOCK * part + 16 * half, BYTES16) for part, half in halves])
        if row.signed:
            inputs, weight_codes = (signs_of(b, values, weight_codes) for values in (inputs, weight_codes))
        products = emit.call(b, Avx2.multiply, PAIRS, [weight_codes, inputs])
        order = ir.Constant(CODES, [ir.Constant(I8, 2 * part + byte % 2) for part, _ in halves for byte in range(16)])
        weight = b.bitcast(_shuffled(b, weights, order), PAIRS)
        part = _pairs_of_words(b, products, weight)
        total = part if total is None else b.add(total, part)
    return [total] if minima is None else [total, _pairs_of_words(b, minima, sums)]


def _pairs_of_words(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    return emit.call(b, Avx2.widen, SUMS, [x, y])


def _shuffled(b: ir.IRBuilder, values: Value, order: Value) -> Value:
    """Bytes out of those in the same half."""
    return emit.call(b, SHUFFLE[2][0], CODES, [values, order])


def _across(b: ir.IRBuilder, sums: Sequence[Value]) -> Value:
    """The sum of each of four vectors of eight, in a vector."""
    pairs = [emit.call(b, "llvm.x86.avx2.phadd.d", SUMS, list(sums[i : i + 2])) for i in (0, 2)]
    halves = split(b, emit.call(b, "llvm.x86.avx2.phadd.d", SUMS, pairs), AT_ONCE)
    return b.add(*halves)


def _nibbles(b: ir.IRBuilder, stored: Value) -> list[Value]:
    """The low and the high halves of bytes."""
    wide = b.bitcast(stored, ir.VectorType(I16, stored.type.count // 2))
    return [mask(b, b.bitcast(part, stored.type), 0x0F) for part in (wide, shift_right(b, wide, 4))]


def _gather(b: ir.IRBuilder, places: Sequence[Value], offset: Offset, kind: ir.Type) -> Value:
    """A number of each row."""
    vector = ir.Constant(ir.VectorType(kind, AT_ONCE), ir.Undefined)
    for i, place in enumerate(places):
        vector = b.insert_element(vector, load(b, place, offset, kind), ir.Constant(I32, i))
    return vector


def _words(*values: int) -> Value:
    return ir.Constant(WORDS4, values)
