"""Few tokens by raw rows of types with super-blocks: putting 16 rows side by side takes longer, and memory is fastest
where it is read from front to back. So rows go one after another, four super-blocks at a time.

A register is filled by 32 or 64 weights, `wide` times 32. Their products with the inputs are added in pairs
(vpmaddubsw), times level and step (vpmaddwd), to sums that are added across at the end of a super-block. These are the
integers of `leveled`. After four rows, floats follow in the same order: so are the results, bit for bit.

What there is of every 32 weights, eight 16-bit numbers a super-block, is computed for four at once: a quarter of 128
bits or two hold what belongs to one, and one vpshufb puts its weights where the products of their halves are.
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
    I8,
    I16,
    I32,
    Value,
    dot_halves,
    fetch,
    fused,
    gather,
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
"""Super-blocks, and rows whose sums wait for each other."""
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
        for first in range(0, PARTS, wide):
            stored = load(b, place, self.codes_at + BLOCK * (first // 2), _bytes(1))
            shifts = [-4 * (part % 2) for part in range(first, first + wide)]
            yield _moved(b, join(b, [stored] * wide), shifts, 0x0F)

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
        bits = join(b, [load(b, place, 16, _bytes(1))] * wide)
        for number, low in enumerate(super().codes(b, place, wide)):
            shifts = [4 - part for part in range(wide * number, wide * (number + 1))]
            yield b.or_(low, _moved(b, bits, shifts, 0x10))


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
        entries = ir.Constant(_bytes(wide), [ir.Constant(I8, entry) for entry in IQ4_TABLE * 2 * wide])
        for first in range(0, PARTS, wide):
            stored = [load(b, place, 8 + 16 * part, BYTES16) for part in range(first, first + wide)]
            twice = join(b, [each for part in stored for each in (part, part)])
            yield _shuffled(b, entries, _moved(b, twice, [0, -4] * wide, 0x0F))

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
    def streams(self) -> int:
        """See Matmul: panels are worth their packing earlier where vectors are wide."""
        return 4 - self.isa.row_parts

    def emit_stream(
        self, b: ir.IRBuilder, raw: RawRows, ahead: Value, x: Value, y: Value, k: Value, lines: Value
    ) -> None:
        """See Matmul. Sums wait where panels would be."""
        blocks, size = self.blocks(b, k), i64(self.type.block_bytes)
        with emit.loop(b, i64(LANES), step=AT_ONCE) as down:
            first = step(b, raw.first, b.mul(down.index, raw.stride))
            self._add_integers(b, first, blocks, x, lines)
            rows = [step(b, first, multiply(b, raw.stride, i) if i else 0) for i in range(AT_ONCE)]
            with emit.loop(b, blocks, emit.real(0.0, FLOATS4)) as each:
                places = [step(b, row, b.mul(each.index, size)) for row in rows]
                sums = step(b, lines, b.mul(each.index, i64(self._waiting)))
                inputs = step(b, x, b.mul(each.index, i64(self.codes.block_bytes)))
                scale = emit.splat(b, load(b, inputs, self.codes.scale, F32, align=4), AT_ONCE)
                total = each.values[0]
                for i, factor in enumerate(ROWS[self.type].factors(b, places)):
                    part = b.sitofp(load(b, sums, 4 * AT_ONCE * i, WORDS4, align=4), FLOATS4)
                    total = fused(b, part, b.fmul(factor, scale), total)
                each.carry(total)
            store(b, step(b, y, b.shl(down.index, i64(2))), 0, each.values[0], align=4)

    @property
    def _waiting(self) -> int:
        """Bytes for the sums of a super-block in each of four rows."""
        return 4 * AT_ONCE * (1 + self.layout.minima)

    def _add_integers(self, b: ir.IRBuilder, first: Value, blocks: Value, x: Value, out: Value) -> None:
        """The sums of all super-blocks of four rows: those of the rows' first, then of their second, and so on."""
        size = self.type.block_bytes
        behind = step(b, x, b.mul(blocks, i64(self.codes.block_bytes)))
        with emit.loop(b, b.mul(blocks, i64(AT_ONCE)), x, out, out, step=AT_ONCE) as each:
            place = step(b, first, b.mul(each.index, i64(size)))
            fetch(b, step(b, place, AHEAD), AT_ONCE * size)
            source, target, top = each.values
            inputs, targets = [], []
            for _ in range(AT_ONCE):
                inputs.append(source)
                targets.append(target)
                source, below = step(b, source, self.codes.block_bytes), step(b, top, 4)
                target = step(b, target, self._waiting)
                over = b.icmp_unsigned("==", source, behind)
                source, target, top = (b.select(over, *pair) for pair in ((x, source), (below, target), (below, top)))
            places = [step(b, place, size * i) for i in range(AT_ONCE)]
            for i, sums in enumerate(self._sums(b, places, inputs)):
                for lane, waiting in enumerate(targets):
                    value = b.extract_element(sums, ir.Constant(I32, lane))
                    store(b, waiting, 4 * AT_ONCE * i, value, align=4)
            each.carry(source, target, top)

    def _sums(self, b: ir.IRBuilder, places: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
        """Of four super-blocks: the sums of the products, and those for the minima if there are any."""
        row, codes = ROWS[self.type], self.codes
        *levels, minima = row.levels(b, places)
        sums = [b.bitcast(_joined(b, inputs, codes.row_sums + 2 * PARTS * half), ALL_HALVES) for half in range(2)]
        steps = b.bitcast(_joined(b, inputs, codes.steps), ALL_HALVES)
        weights = [b.bitcast(b.mul(level, steps), ALL_BYTES) for level in levels]
        products = [
            self._products(b, weights, number, *each) for number, each in enumerate(zip(places, inputs, strict=True))
        ]
        result = [_across(b, products)]
        if row.offset:
            by_offset = _within(b, levels, sums)
            result[0] = b.add(result[0], b.mul(by_offset, same(by_offset, row.offset)))
        if minima is not None:
            result.append(_within(b, [minima] * 2, sums))
        return result

    def _products(self, b: ir.IRBuilder, weights: Sequence[Value], number: int, place: Value, x: Value) -> Value:
        """Of one super-block: some sums whose sum is that of the products."""
        row, wide = ROWS[self.type], self.isa.row_parts
        both = [16 * (number + AT_ONCE * half) + i for half in range(2) for i in range(16)]
        own = shuffle(b, weights[0], weights[1], both * wide)
        total = None
        for at, codes in enumerate(row.codes(b, place, wide)):
            values = load(b, x, BLOCK * wide * at, _bytes(wide))
            if row.signed:
                values, codes = (signs_of(b, each, codes) for each in (values, codes))
            products = emit.call(b, PAIR_SUMS[wide].multiply, ir.VectorType(I16, LANES * wide), [codes, values])
            order = [ir.Constant(I8, 2 * (wide * at + byte // BLOCK) + byte % 2) for byte in range(BLOCK * wide)]
            weight = b.bitcast(_shuffled(b, own, ir.Constant(_bytes(wide), order)), products.type)
            part = emit.call(b, PAIR_SUMS[wide].widen, ir.VectorType(I32, PARTS * wide), [products, weight])
            total = part if total is None else b.add(total, part)
        return total


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
