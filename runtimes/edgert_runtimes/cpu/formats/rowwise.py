"""Few tokens by raw rows of types with super-blocks, four rows at a time, each on its own: putting 16 rows side by side
takes longer than this where integer vectors have 256 bits, and as long as memory does where they have 512.

A register is filled by 32 or 64 weights of a row, `wide` times 32. Their products with the inputs are added in pairs
(vpmaddubsw), times level and step (vpmaddwd), to sums that are added across at the end of a super-block. These are the
integers of `leveled`, and the floats follow in the same order: so are the results, bit for bit.

What there is of every 32 weights, eight 16-bit numbers a row, is computed for four rows at once: a quarter of 128 bits
or two hold what belongs to a row, and one vpshufb puts a row's weights where the products of their halves are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.activations import BLOCK, PARTS
from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa.x86 import SHUFFLE, Avx2, Avx512, signs_of
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
    dot_halves,
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

PAIRS = ir.VectorType(I16, LANES)
SUMS = ir.VectorType(I32, PARTS)
BYTES16 = ir.VectorType(I8, 16)
HALVES8 = ir.VectorType(I16, PARTS)
FLOATS4 = ir.VectorType(F32, AT_ONCE)
ROW_BYTES = ir.VectorType(I8, 16 * AT_ONCE)
ROW_HALVES = ir.VectorType(I16, PARTS * AT_ONCE)
"""Of each row, a number of every 32 weights."""
ROW_WORDS = ir.VectorType(I32, 4 * AT_ONCE)

Quarters = Sequence[tuple[int, int]]
"""Of each 16 weights in a vector: which 32 they belong to, and which half of these they are."""

PAIR_SUMS: dict[int, type[Avx2 | Avx512]] = {1: Avx2, 2: Avx512}
"""By the width of vectors, who names the instructions that multiply and add pairs."""


class Row(ABC):
    """How one type lies in the file. `place` and `places` are pointers to a super-block of a row, or of four."""

    offset = 0
    """The codes are so much too large."""
    signed = False
    """They are signed bytes, out of a table."""

    @abstractmethod
    def levels(self, b: ir.IRBuilder, places: Sequence[Value]) -> tuple[Value, Value, Value | None]:
        """Levels of the first and of the second halves of 32 weights, and those of the minima: ROW_HALVES each."""

    @abstractmethod
    def codes(self, b: ir.IRBuilder, place: Value, wide: int) -> Iterator[tuple[Value, Quarters]]:
        """All codes, a byte each, in vectors of `wide` times 32, and what their quarters of 128 bits hold. Where these
        are not first and second halves in turns, levels must be the same for both.
        """

    @abstractmethod
    def factors(self, b: ir.IRBuilder, places: Sequence[Value]) -> list[Value]:
        """The factor of each row in a vector, and that of the minima if there are any."""


class RowQ4K(Row):
    """See `blocks256.Q4_K`."""

    codes_at = 16

    def levels(self, b: ir.IRBuilder, places: Sequence[Value]) -> tuple[Value, Value, Value]:
        """Bytes 4-15, three words a, c and low, hold sixteen numbers of six bits as `blocks256.Q4_K.pack` says."""
        words = b.bitcast(_of_rows(b, places, 0), ROW_WORDS)
        outer, rest = (_in_rows(b, words, order) for order in ([1, 1, 2, 2], [3] * 4))
        low = b.and_(outer, _words(0x3F3F3F3F, 0, 0x3F3F3F3F, 0))
        upper = b.and_(shift_right(b, outer, 2), _words(0, 0x30303030, 0, 0x30303030))
        rest = b.and_(b.lshr(rest, _words(0, 0, 0, 4)), _words(0, 0x0F0F0F0F, 0, 0x0F0F0F0F))
        numbers = b.bitcast(b.or_(b.or_(low, upper), rest), ROW_BYTES)
        levels, minima = (_as_halves(b, numbers, range(first, first + PARTS)) for first in (0, PARTS))
        return levels, levels, minima

    def codes(self, b: ir.IRBuilder, place: Value, wide: int) -> Iterator[tuple[Value, Quarters]]:
        """Every 32 bytes are the low and the high halves of 32 weights each."""
        for first in range(0, PARTS, 2 * wide):
            stored = load(b, place, self.codes_at + BLOCK * first // 2, _bytes(wide))
            for high, codes in enumerate(_nibbles(b, stored)):
                yield codes, in_turns(range(first + high, first + 2 * wide, 2))

    def factors(self, b: ir.IRBuilder, places: Sequence[Value]) -> list[Value]:
        """Pairs of halves."""
        pairs = _gather(b, places, 0, I32)
        kind = ir.VectorType(I16, AT_ONCE)
        return [emit.half_to_float(b, b.trunc(shift_right(b, pairs, shift), kind)) for shift in (0, 16)]


class RowQ5K(RowQ4K):
    """See `blocks256.Q5_K`."""

    codes_at = 48

    def codes(self, b: ir.IRBuilder, place: Value, wide: int) -> Iterator[tuple[Value, Quarters]]:
        """Bit j of byte l belongs to weight 32 j + l."""
        bits = join(b, [load(b, place, 16, _bytes(1))] * wide)
        for low, quarters in super().codes(b, place, wide):
            parts = [part for part, half in quarters if half == 0]
            yield b.or_(low, _moved(b, bits, [4 - part for part in parts], 0x10)), quarters


class RowQ6K(Row):
    """See `blocks256.Q6_K`."""

    offset = 32

    def levels(self, b: ir.IRBuilder, places: Sequence[Value]) -> tuple[Value, Value, None]:
        """Sixteen signed bytes, those of first and second halves in turns."""
        pairs = b.bitcast(_of_rows(b, places, 192), ROW_HALVES)
        eight = same(pairs, 8)
        return b.ashr(b.shl(pairs, eight), eight), b.ashr(pairs, eight), None

    def codes(self, b: ir.IRBuilder, place: Value, wide: int) -> Iterator[tuple[Value, Quarters]]:
        """Four bits of 64 bytes, then two of 32, for every 128 weights."""
        for half in range(2):
            high = join(b, [load(b, place, 128 + BLOCK * half, _bytes(1))] * wide)
            for first in range(0, 2, wide):
                stored = load(b, place, 64 * half + BLOCK * first, _bytes(wide))
                for upper, low in zip((0, 2), _nibbles(b, stored), strict=True):
                    parts = range(first + upper, first + upper + wide)
                    codes = b.or_(low, _moved(b, high, [4 - 2 * part for part in parts], 0x30))
                    yield codes, in_turns(4 * half + part for part in parts)

    def factors(self, b: ir.IRBuilder, places: Sequence[Value]) -> list[Value]:
        """Halves."""
        return [emit.half_to_float(b, _gather(b, places, 208, I16))]


class RowIQ4XS(Row):
    """See `tables.IQ4_XS`."""

    signed = True

    def levels(self, b: ir.IRBuilder, places: Sequence[Value]) -> tuple[Value, Value, None]:
        """The upper two bits of each in bytes 2-3, the lower four in bytes 4-7."""
        stored = _of_rows(b, places, 0)
        upper = b.bitcast(_in_rows(b, stored, [2, 3] * PARTS), ROW_HALVES)
        lower = _as_halves(b, stored, [4 + part // 2 for part in range(PARTS)])
        upper = shift_left(b, shift_right(b, b.shl(upper, _halves(range(14, -2, -2))), 14), 4)
        lower = shift_right(b, b.shl(lower, _halves([12, 8] * 4)), 12)
        numbers = b.sub(b.or_(lower, upper), same(lower, 32))
        return numbers, numbers, None

    def codes(self, b: ir.IRBuilder, place: Value, wide: int) -> Iterator[tuple[Value, Quarters]]:
        """Entries of the table: bytes j of 16 have code j in the low and code 16 + j in the high half."""
        entries = ir.Constant(_bytes(wide), [ir.Constant(I8, entry) for entry in IQ4_TABLE * 2 * wide])
        for first in range(0, PARTS, 2 * wide):
            stored = load(b, place, 8 + BLOCK * first // 2, _bytes(wide))
            for half, indices in enumerate(_nibbles(b, stored)):
                yield _shuffled(b, entries, indices), [(part, half) for part in range(first, first + 2 * wide)]

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
        portion = AT_ONCE * self.type.block_bytes
        with emit.loop(b, i64(LANES), step=AT_ONCE) as down:
            first = step(b, raw.first, b.mul(down.index, raw.stride))
            rows = [step(b, first, multiply(b, raw.stride, i) if i else 0) for i in range(AT_ONCE)]
            ahead = step(b, first, multiply(b, raw.stride, AT_ONCE))
            with emit.loop(b, self.blocks(b, k), emit.real(0.0, FLOATS4)) as each:
                fetch(b, step(b, ahead, b.mul(each.index, i64(portion))), portion)
                start = b.mul(each.index, i64(self.type.block_bytes))
                places = [step(b, place, start) for place in rows]
                inputs = step(b, x, b.mul(each.index, i64(self.codes.block_bytes)))
                scale = emit.splat(b, load(b, inputs, self.codes.scale, F32, align=4), AT_ONCE)
                total = each.values[0]
                for factor, sums in zip(ROWS[self.type].factors(b, places), self._sums(b, places, inputs), strict=True):
                    total = fused(b, b.sitofp(sums, FLOATS4), b.fmul(factor, scale), total)
                each.carry(total)
            store(b, step(b, y, b.shl(down.index, i64(2))), 0, each.values[0], align=4)

    def _sums(self, b: ir.IRBuilder, places: Sequence[Value], x: Value) -> list[Value]:
        """Of a super-block of four rows: the sums of the products, and those for the minima if there are any."""
        row = ROWS[self.type]
        *levels, minima = row.levels(b, places)
        sums = [load(b, x, self.codes.row_sums + 2 * PARTS * half, HALVES8) for half in range(2)]
        steps = _to_rows(b, load(b, x, self.codes.steps, HALVES8))
        weights = [b.bitcast(b.mul(level, steps), ROW_BYTES) for level in levels]
        products = [self._products(b, row, weights, number, place, x) for number, place in enumerate(places)]
        result = [_across(b, products)]
        if row.offset:
            by_offset = _within_rows(b, levels, sums)
            result[0] = b.add(result[0], b.mul(by_offset, same(by_offset, row.offset)))
        if minima is not None:
            result.append(_within_rows(b, [minima] * 2, sums))
        return result

    def _products(
        self, b: ir.IRBuilder, row: Row, weights: Sequence[Value], number: int, place: Value, x: Value
    ) -> Value:
        """Of a super-block of one row: some sums whose sum is that of the products."""
        wide = self.isa.row_parts
        both = [16 * (number + AT_ONCE * half) + i for half in range(2) for i in range(16)]
        own = shuffle(b, *weights, both * wide)
        total = None
        for codes, quarters in row.codes(b, place, wide):
            inputs = join(b, [load(b, x, BLOCK * part + 16 * half, BYTES16) for part, half in quarters])
            if row.signed:
                inputs, codes = (signs_of(b, values, codes) for values in (inputs, codes))
            products = emit.call(b, PAIR_SUMS[wide].multiply, ir.VectorType(I16, LANES * wide), [codes, inputs])
            order = [ir.Constant(I8, 2 * part + byte % 2) for part, _ in quarters for byte in range(16)]
            weight = b.bitcast(_shuffled(b, own, ir.Constant(_bytes(wide), order)), products.type)
            part = emit.call(b, PAIR_SUMS[wide].widen, ir.VectorType(I32, PARTS * wide), [products, weight])
            total = part if total is None else b.add(total, part)
        return total


def in_turns(parts: Iterable[int]) -> Quarters:
    """The first and the second halves of some 32 weights."""
    return [(part, half) for part in parts for half in range(2)]


def _bytes(wide: int) -> ir.VectorType:
    return ir.VectorType(I8, BLOCK * wide)


def _of_rows(b: ir.IRBuilder, places: Sequence[Value], offset: int) -> Value:
    """Sixteen bytes of each row."""
    return join(b, [load(b, place, offset, BYTES16) for place in places])


def _in_rows(b: ir.IRBuilder, values: Value, order: Sequence[int]) -> Value:
    """Elements out of those of the same row."""
    count = values.type.count // AT_ONCE
    return shuffle(b, values, values, [count * row + i for row in range(AT_ONCE) for i in order])


def _as_halves(b: ir.IRBuilder, numbers: Value, order: Iterable[int]) -> Value:
    """Eight bytes of each row, as 16-bit numbers."""
    zero = ROW_BYTES.count
    pairs = [each for row in range(AT_ONCE) for i in order for each in (16 * row + i, zero)]
    return b.bitcast(shuffle(b, numbers, same(numbers, 0), pairs), ROW_HALVES)


def _to_rows(b: ir.IRBuilder, values: Value) -> Value:
    """The same for every row."""
    return join(b, [values] * AT_ONCE)


def _within_rows(b: ir.IRBuilder, numbers: Sequence[Value], sums: Sequence[Value]) -> Value:
    """Σ number · sum of each row, over first and second halves."""
    parts = [
        dot_halves(b, b.bitcast(n, ROW_WORDS), b.bitcast(_to_rows(b, s), ROW_WORDS))
        for n, s in zip(numbers, sums, strict=True)
    ]
    total = b.add(*parts)
    for order in ([2, 3, 0, 1], [1, 0, 3, 2]):
        total = b.add(total, _in_rows(b, total, order))
    return shuffle(b, total, total, range(0, 4 * AT_ONCE, 4))


def _moved(b: ir.IRBuilder, bits: Value, shifts: Sequence[int], keep: int) -> Value:
    """Bytes, every 32 of them shifted left by a number of their own, or right by a negative one; some bits of them.
    All are shifted the same way.
    """
    halves = b.bitcast(bits, ir.VectorType(I16, LANES * len(shifts)))
    counts = ir.Constant(halves.type, [abs(shift) for shift in shifts for _ in range(LANES)])
    moved = b.shl(halves, counts) if max(shifts) > 0 else b.lshr(halves, counts)
    return mask(b, b.bitcast(moved, bits.type), keep)


def _shuffled(b: ir.IRBuilder, values: Value, order: Value) -> Value:
    """Bytes out of those in the same quarter."""
    return emit.call(b, SHUFFLE[2 * BLOCK // values.type.count][0], values.type, [values, order])


def _across(b: ir.IRBuilder, sums: Sequence[Value]) -> Value:
    """The sum of each of four vectors, in a vector."""
    if sums[0].type.count > PARTS:
        sums = [b.add(*split(b, each, PARTS)) for each in sums]
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
    """Four words, the same for every row."""
    return ir.Constant(ROW_WORDS, values * AT_ONCE)


def _halves(values: Iterable[int]) -> Value:
    """Eight 16-bit numbers, the same for every row."""
    return ir.Constant(ROW_HALVES, [*values] * AT_ONCE)
