"""One token by raw rows of types with super-blocks, or two: putting 16 rows side by side takes longer, and memory is
fastest where it is read from front to back. So rows go one after another, four super-blocks at a time.

Products of codes with inputs are added in pairs (vpmaddubsw), times level and step (vpmaddwd), to sums that are added
across at the end of a super-block. These are the integers of `leveled`. Times the factors, they wait until sixteen rows
are done, and are added up side by side in the same order: so are the results, bit for bit.

What there is of every 32 weights, eight 16-bit numbers a super-block, is computed for four at once: a quarter of 128
bits or two hold what belongs to one. Weights of products are read again from memory, a word for all lanes; where each
16 have levels of their own, one vpshufb puts them where the products of their halves are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.activations import BLOCK, PARTS
from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa import Isa
from edgert_runtimes.cpu.formats.isa.x86 import SHUFFLE, Avx2, Avx512, signs_of
from edgert_runtimes.cpu.formats.leveled import LeveledBlocks
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.tables import IQ4_TABLE
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    I8,
    I16,
    I32,
    I64,
    ROW_WORD,
    Value,
    dot_halves,
    fetch,
    fused,
    gather,
    i64,
    join,
    load,
    mask,
    same,
    shift_left,
    shift_right,
    shuffle,
    splat,
    split,
    step,
    store,
)

AT_ONCE = 4
"""Super-blocks, and rows whose sums wait for each other."""
WEIGHT_BYTES = AT_ONCE * BLOCK
"""Of the weights of products: as many as super-blocks have weights for each 16."""
AHEAD = 12288
"""Bytes from what is read to what is fetched."""

PAIRS = ir.VectorType(I16, LANES)
SUMS = ir.VectorType(I32, PARTS)
BYTES16 = ir.VectorType(I8, 16)
HALVES8 = ir.VectorType(I16, PARTS)
WORDS4 = ir.VectorType(I32, AT_ONCE)
FLOATS4 = ir.VectorType(F32, AT_ONCE)
ALL_BYTES = ir.VectorType(I8, 16 * AT_ONCE)
ALL_HALVES = ir.VectorType(I16, PARTS * AT_ONCE)
"""Of each super-block, a number of every 32 weights."""
ALL_WORDS = ir.VectorType(I32, 4 * AT_ONCE)


PAIR_SUMS: dict[int, type[Avx2 | Avx512]] = {1: Avx2, 2: Avx512}
"""By the width of vectors, who names the instructions that multiply and add pairs."""


class Row(ABC):
    """How one type lies in the file. `place` and `places` are pointers to one super-block and to four."""

    offset = 0
    """The codes are so much too large."""
    signed = False
    """They are signed bytes, out of a table."""
    widest = 2
    """Up to how wide vectors this is faster than 16 rows side by side."""

    @abstractmethod
    def levels(self, b: ir.IRBuilder, places: Sequence[Value]) -> tuple[Value, Value, Value | None]:
        """Levels of the first and of the second halves of 32 weights, and those of the minima: ALL_HALVES each."""

    @abstractmethod
    def codes(self, b: ir.IRBuilder, place: Value, wide: int) -> Iterator[Value]:
        """All codes in order, a byte each, in vectors of `wide` times 32."""

    @abstractmethod
    def factors(self, b: ir.IRBuilder, places: Sequence[Value]) -> list[Value]:
        """The factors of four rows' super-blocks, and those of the minima if there are any."""


class RowQ4K(Row):
    """See `blocks256.Q4_K`."""

    codes_at = 16

    def levels(self, b: ir.IRBuilder, places: Sequence[Value]) -> tuple[Value, Value, Value]:
        """Bytes 4-15, three words a, c and low, hold sixteen numbers of six bits as `blocks256.Q4_K.pack` says."""
        words = b.bitcast(_joined(b, places, 0), ALL_WORDS)
        outer, rest = (_in_quarters(b, words, order) for order in ([1, 1, 2, 2], [3] * 4))
        low = b.and_(outer, _words(0x3F3F3F3F, 0, 0x3F3F3F3F, 0))
        upper = b.and_(shift_right(b, outer, 2), _words(0, 0x30303030, 0, 0x30303030))
        rest = b.and_(b.lshr(rest, _words(0, 0, 0, 4)), _words(0, 0x0F0F0F0F, 0, 0x0F0F0F0F))
        numbers = b.bitcast(b.or_(b.or_(low, upper), rest), ALL_BYTES)
        levels, minima = (_as_halves(b, numbers, range(first, first + PARTS)) for first in (0, PARTS))
        return levels, levels, minima

    def codes(self, b: ir.IRBuilder, place: Value, wide: int) -> Iterator[Value]:
        """Every 32 bytes are the low and the high halves of 32 weights each."""
        for pair in range(PARTS // 2):
            stored = load(b, place, self.codes_at + BLOCK * pair, _bytes(1))
            yield from (_moved(b, stored, [shift], 0x0F) for shift in (0, -4))

    def factors(self, b: ir.IRBuilder, places: Sequence[Value]) -> list[Value]:
        """Pairs of halves."""
        pairs = gather(b, places, 0, I32)
        kind = ir.VectorType(I16, AT_ONCE)
        return [emit.half_to_float(b, b.trunc(shift_right(b, pairs, shift), kind)) for shift in (0, 16)]


class RowQ5K(RowQ4K):
    """See `blocks256.Q5_K`."""

    codes_at = 48

    def codes(self, b: ir.IRBuilder, place: Value, wide: int) -> Iterator[Value]:
        """Bit j of byte l belongs to weight 32 j + l."""
        bits = load(b, place, 16, _bytes(1))
        for part, low in enumerate(super().codes(b, place, wide)):
            yield b.or_(low, _moved(b, bits, [4 - part], 0x10))


class RowQ6K(Row):
    """See `blocks256.Q6_K`."""

    offset = 32

    def levels(self, b: ir.IRBuilder, places: Sequence[Value]) -> tuple[Value, Value, None]:
        """Sixteen signed bytes, those of first and second halves in turns."""
        pairs = b.bitcast(_joined(b, places, 192), ALL_HALVES)
        eight = same(pairs, 8)
        return b.ashr(b.shl(pairs, eight), eight), b.ashr(pairs, eight), None

    def codes(self, b: ir.IRBuilder, place: Value, wide: int) -> Iterator[Value]:
        """Of every 128 weights: four bits of 64 and of another 64 in 64 bytes, two of 32 and of others in 32."""
        for first in range(0, PARTS, wide):
            half, part = divmod(first, 4)
            stored = load(b, place, 64 * half + BLOCK * (part % 2), _bytes(wide))
            low = _moved(b, stored, [-4 * (part // 2)] * wide, 0x0F)
            high = join(b, [load(b, place, 128 + BLOCK * half, _bytes(1))] * wide)
            yield b.or_(low, _moved(b, high, [4 - 2 * each for each in range(part, part + wide)], 0x30))

    def factors(self, b: ir.IRBuilder, places: Sequence[Value]) -> list[Value]:
        """Halves."""
        return [emit.half_to_float(b, gather(b, places, 208, I16))]


class RowIQ4XS(Row):
    """See `tables.IQ4_XS`."""

    signed = True
    widest = 1

    def levels(self, b: ir.IRBuilder, places: Sequence[Value]) -> tuple[Value, Value, None]:
        """The upper two bits of each in bytes 2-3, the lower four in bytes 4-7."""
        stored = _joined(b, places, 0)
        upper = b.bitcast(_in_quarters(b, stored, [2, 3] * PARTS), ALL_HALVES)
        lower = _as_halves(b, stored, [4 + part // 2 for part in range(PARTS)])
        upper = shift_left(b, shift_right(b, b.shl(upper, _halves(range(14, -2, -2))), 14), 4)
        lower = shift_right(b, b.shl(lower, _halves([12, 8] * 4)), 12)
        numbers = b.sub(b.or_(lower, upper), same(lower, 32))
        return numbers, numbers, None

    def codes(self, b: ir.IRBuilder, place: Value, wide: int) -> Iterator[Value]:
        """Entries of the table: bytes j of 16 have code j in the low and code 16 + j in the high half."""
        entries = ir.Constant(_bytes(1), [ir.Constant(I8, entry) for entry in IQ4_TABLE * 2])
        for part in range(PARTS):
            stored = load(b, place, 8 + 16 * part, BYTES16)
            both = join(b, [_moved(b, stored, [shift], 0x0F) for shift in (0, -4)])
            yield _shuffled(b, entries, both)

    def factors(self, b: ir.IRBuilder, places: Sequence[Value]) -> list[Value]:
        """Halves."""
        return [emit.half_to_float(b, gather(b, places, 0, I16))]


ROWS: dict[BlockType, Row] = {
    BlockType.Q4_K: RowQ4K(),
    BlockType.Q5_K: RowQ5K(),
    BlockType.Q6_K: RowQ6K(),
    BlockType.IQ4_XS: RowIQ4XS(),
}


def by_rows(block_type: BlockType, isa: Isa) -> bool:
    """Whether few tokens go through the rows of a type one by one."""
    return block_type in ROWS and 0 < isa.row_parts <= ROWS[block_type].widest


class RowwiseBlocks(LeveledBlocks):
    """A type with super-blocks whose rows few tokens go through one by one."""

    @property
    def by_rows(self) -> int:
        """How many tokens: more where putting sixteen rows side by side takes most, as levels for every 16 make it."""
        return self.layout.halves

    @property
    def streams(self) -> tuple[int, ...]:  # type: ignore[override]
        """See Matmul."""
        return super().streams if self.layout.halves == 1 else (1, 2)

    def emit_stream(
        self,
        b: ir.IRBuilder,
        raw: RawRows,
        ahead: Value,
        xs: Sequence[Value],
        ys: Sequence[Value],
        k: Value,
        lines: Value,
    ) -> None:
        """See Matmul. Where panels would be are the weights of the products of some super-blocks, where their inputs
        are, and what waits: factors times integers of sixteen rows, super-block after super-block.
        """
        if len(xs) > self.by_rows:
            super().emit_stream(b, raw, ahead, xs, ys, k, lines)
            return
        blocks = self.blocks(b, k)
        orders = step(b, lines, WEIGHT_BYTES * len(xs))
        if self.layout.halves == 2:  # in memory, so that LLVM does not make slower shuffles of them
            for part in range(PARTS):
                order = [ir.Constant(I8, 2 * part + byte % 2) for byte in range(BLOCK)]
                store(b, orders, BLOCK * part, ir.Constant(_bytes(1), order), align=BLOCK)
        offsets = step(b, orders, BLOCK * PARTS)
        waiting = [step(b, offsets, b.mul(b.add(blocks, i64(AT_ONCE)), i64(8)))]
        for _ in xs:
            waiting.append(step(b, waiting[-1], b.mul(blocks, i64(ROW_WORD))))
        self._note_inputs(b, blocks, offsets)
        self._add_integers(b, raw.first, blocks, xs, lines, orders, offsets, waiting)
        pitch = b.shl(blocks, i64(2))
        for x, y, parts in zip(xs, ys, waiting, strict=False):
            rows = RawRows(b, parts, pitch)
            done, total = i64(0), emit.real(0.0, FLOATS)
            for count in (AT_ONCE, 1):
                with emit.loop(b, b.sub(blocks, i64(count - 1)), total, start=done, step=count) as each:
                    inputs = step(b, x, b.mul(each.index, i64(self.codes.block_bytes)))
                    total = each.values[0]
                    for i, words in enumerate(rows.columns(b.shl(each.index, i64(2)), count)):
                        scale = load(b, inputs, self.codes.block_bytes * i + self.codes.scale, F32, align=4)
                        total = fused(b, b.bitcast(words, FLOATS), splat(b, scale), total)
                    each.carry(total)
                done, total = each.index, each.values[0]
            store(b, y, 0, total, align=4)

    def _note_inputs(self, b: ir.IRBuilder, blocks: Value, offsets: Value) -> None:
        """Where the inputs of super-blocks are: those of a row, and the first again for the row behind it."""
        end = b.mul(blocks, i64(self.codes.block_bytes))
        with emit.loop(b, b.add(blocks, i64(AT_ONCE - 1)), i64(0)) as each:
            offset = each.values[0]
            store(b, offsets, b.shl(each.index, i64(3)), offset, align=8)
            offset = b.add(offset, i64(self.codes.block_bytes))
            each.carry(b.select(b.icmp_unsigned("<", offset, end), offset, i64(0)))

    def _add_integers(
        self,
        b: ir.IRBuilder,
        first: Value,
        blocks: Value,
        xs: Sequence[Value],
        weights: Value,
        orders: Value,
        offsets: Value,
        waiting: Sequence[Value],
    ) -> None:
        """All super-blocks of sixteen rows, which lie one behind the other."""
        size, row = self.type.block_bytes, ROWS[self.type]
        further = b.urem(i64(AT_ONCE), blocks)
        with emit.loop(b, b.mul(blocks, i64(LANES)), i64(0), step=AT_ONCE) as each:
            place = step(b, first, b.mul(each.index, i64(size)))
            fetch(b, step(b, place, AHEAD), AT_ONCE * size)
            places = [step(b, place, size * i) for i in range(AT_ONCE)]
            noted = step(b, offsets, b.shl(each.values[0], i64(3)))
            inputs = [load(b, noted, 8 * i, I64, align=8) for i in range(AT_ONCE)]
            tokens = [[step(b, x, offset) for offset in inputs] for x in xs]
            levels, factors = row.levels(b, places), row.factors(b, places)
            starts = [self._start(b, levels, each, step(b, weights, WEIGHT_BYTES * t)) for t, each in enumerate(tokens)]
            products = [
                self._products(b, each_place, [x[i] for x in tokens], [each[0][i] for each in starts], orders)
                for i, each_place in enumerate(places)
            ]
            for t, (_, start, minima) in enumerate(starts):
                sums = _across(b, [each[t] for each in products])
                if start is not None:
                    sums = b.add(sums, start)
                part = b.fmul(b.sitofp(sums, FLOATS4), factors[0])
                if minima is not None:
                    part = fused(b, b.sitofp(minima, FLOATS4), factors[1], part)
                store(b, waiting[t], b.shl(each.index, i64(2)), part, align=4)
            behind = b.add(each.values[0], further)
            over = b.icmp_signed(">=", behind, blocks)
            each.carry(b.select(over, b.sub(behind, blocks), behind))

    def _start(
        self, b: ir.IRBuilder, levels: Sequence[Value | None], inputs: Sequence[Value], place: Value
    ) -> tuple[Sequence[Value], Value | None, Value | None]:
        """Of four super-blocks and a token: the weights of products, which are level times step, for each of the
        super-blocks; by the sums of inputs, what offsets give, and minima.
        """
        codes, (*halves, minima), offset = self.codes, levels, ROWS[self.type].offset
        steps = b.bitcast(_joined(b, inputs, codes.steps), ALL_HALVES)
        first, second = (b.mul(level, steps) for level in halves)
        if self.layout.halves == 1:
            twice = shuffle(
                b, first, second, [i + ALL_HALVES.count * half for i in range(ALL_HALVES.count) for half in range(2)]
            )
            store(b, place, 0, twice, align=ROW_WORD)
            weights = [step(b, place, BLOCK * i) for i in range(AT_ONCE)]
        else:
            parts = [
                [PARTS * i + part + ALL_HALVES.count * half for half in range(2) for part in range(PARTS)]
                for i in range(AT_ONCE)
            ]
            weights = [b.bitcast(shuffle(b, first, second, order * self._wide), _bytes(self._wide)) for order in parts]
        sums = [b.bitcast(_joined(b, inputs, codes.row_sums + 2 * PARTS * half), ALL_HALVES) for half in range(2)]
        start = by_minima = None
        if offset:
            start = _within(b, halves, sums)
            start = b.mul(start, same(start, offset))
        if minima is not None:
            by_minima = _within(b, [minima] * 2, sums)
        return weights, start, by_minima

    def _products(
        self, b: ir.IRBuilder, place: Value, xs: Sequence[Value], weights: Sequence[Value], orders: Value
    ) -> list[Value]:
        """Of one super-block: for each token, some sums whose sum is that of the products."""
        wide, kind = self._wide, PAIR_SUMS[self._wide]
        sums, pairs = ir.VectorType(I32, PARTS * wide), ir.VectorType(I16, LANES * wide)
        totals: list[Value] = [ir.Constant(sums, [0] * sums.count)] * len(xs)
        for at, codes in enumerate(ROWS[self.type].codes(b, place, wide)):
            for t, x in enumerate(xs):
                values, magnitudes = load(b, x, BLOCK * wide * at, _bytes(wide)), codes
                if ROWS[self.type].signed:
                    values, magnitudes = (signs_of(b, each, codes) for each in (values, codes))
                products = emit.call(b, kind.multiply, pairs, [magnitudes, values])
                if self.layout.halves == 1:
                    weight = emit.splat(b, load(b, weights[t], 4 * at, I32, align=4), PARTS)
                else:
                    order = load(b, orders, BLOCK * wide * at, _bytes(wide), align=BLOCK)
                    weight = _shuffled(b, weights[t], order)
                part = emit.call(b, kind.widen, sums, [products, b.bitcast(weight, pairs)])
                totals[t] = b.add(totals[t], part)
        return totals

    @property
    def _wide(self) -> int:
        """How many times 32 weights fill a vector. Those that share a level do not fill more: so the weight of
        their products is one word of memory, in every lane.
        """
        return self.isa.row_parts if self.layout.halves == 2 else 1


def _bytes(wide: int) -> ir.VectorType:
    return ir.VectorType(I8, BLOCK * wide)


def _joined(b: ir.IRBuilder, places: Sequence[Value], offset: int) -> Value:
    """Sixteen bytes of each."""
    return join(b, [load(b, place, offset, BYTES16) for place in places])


def _in_quarters(b: ir.IRBuilder, values: Value, order: Sequence[int]) -> Value:
    """Elements out of those of the same super-block."""
    count = values.type.count // AT_ONCE
    return shuffle(b, values, values, [count * quarter + i for quarter in range(AT_ONCE) for i in order])


def _as_halves(b: ir.IRBuilder, numbers: Value, order: Iterable[int]) -> Value:
    """Eight bytes of each super-block, as 16-bit numbers."""
    zero = ALL_BYTES.count
    pairs = [each for quarter in range(AT_ONCE) for i in order for each in (16 * quarter + i, zero)]
    return b.bitcast(shuffle(b, numbers, same(numbers, 0), pairs), ALL_HALVES)


def _within(b: ir.IRBuilder, numbers: Sequence[Value], sums: Sequence[Value]) -> Value:
    """Σ number · sum of each super-block, over first and second halves."""
    operands = ([b.bitcast(value, ALL_WORDS) for value in pair] for pair in zip(numbers, sums, strict=True))
    total = b.add(*(dot_halves(b, *pair) for pair in operands))
    for order in ([2, 3, 0, 1], [1, 0, 3, 2]):
        total = b.add(total, _in_quarters(b, total, order))
    return shuffle(b, total, total, range(0, 4 * AT_ONCE, 4))


def _moved(b: ir.IRBuilder, bits: Value, shifts: Sequence[int], keep: int) -> Value:
    """Bytes, equal parts of them shifted left by numbers of their own, or all of them right by negative ones; the bits
    to `keep`, which must not come from other bytes.
    """
    words = b.bitcast(bits, ir.VectorType(I32, bits.type.count // 4))
    counts = ir.Constant(words.type, [abs(shift) for shift in shifts for _ in range(words.type.count // len(shifts))])
    moved = b.shl(words, counts) if max(shifts) > 0 else b.lshr(words, counts)
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


def _words(*values: int) -> Value:
    """Four words, the same for every super-block."""
    return ir.Constant(ALL_WORDS, values * AT_ONCE)


def _halves(values: Iterable[int]) -> Value:
    """Eight 16-bit numbers, the same for every super-block."""
    return ir.Constant(ALL_HALVES, [*values] * AT_ONCE)
