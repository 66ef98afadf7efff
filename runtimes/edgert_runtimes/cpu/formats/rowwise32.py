"""One token by raw rows of types with blocks of 32: as `rowwise`, rows go one after another, from front to back.

Four blocks are multiplied at once: each has a quarter of a vector of 16 words, one for its first 16 codes, another for
the others. Inputs are put in that order before, once for sixteen rows. What a block's integer sum and its factor give
waits until sixteen rows are done; then floats follow, a vector lane to a row, in the order of `scaled`: so are the
results, bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit, host
from llvmlite import ir

from edgert_runtimes.cpu.formats.activations import BLOCK
from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa import Isa
from edgert_runtimes.cpu.formats.isa.base import Operand, Sums
from edgert_runtimes.cpu.formats.isa.x86 import Avx512Vnni
from edgert_runtimes.cpu.formats.quantized import ZEROS
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.rowwise import AHEAD
from edgert_runtimes.cpu.formats.scaled import ScaledBlocks
from edgert_runtimes.cpu.formats.tables import power_of_two
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    I8,
    I16,
    I32,
    LINE,
    ROW_WORD,
    WORDS,
    Value,
    fetch,
    fused,
    gather,
    i64,
    join,
    load,
    mask,
    same,
    shift_right,
    shuffle,
    splat,
    split,
    step,
    store,
)

AT_ONCE = 8
"""Blocks of a row."""
ALL = range(AT_ONCE)
FOUR = 4
"""Blocks that share a vector, and words of each in it."""

BYTES16 = ir.VectorType(I8, 16)
BYTES64 = ir.VectorType(I8, 64)
BITS64 = ir.VectorType(ir.IntType(1), 64)
WORDS8 = ir.VectorType(I32, AT_ONCE)
FLOATS8 = ir.VectorType(F32, AT_ONCE)


class Stretch:
    """Eight blocks of a row, of `size` bytes each. With 512 bits, and where three loads hold them all, parts are put
    together by permuting words, or bytes (VBMI); elsewhere they are loaded one by one.
    """

    def __init__(self, b: ir.IRBuilder, place: Value, size: int, isa: Isa) -> None:
        self._b = b
        self._place = place
        self._size = size
        self._unit = 1 if size % 2 else 2
        self._loads: dict[int, Value] = {}
        end = AT_ONCE * size
        if isa.row_parts == 2 and end <= 3 * LINE and (self._unit == 2 or host().has("avx512vbmi")):
            kind = ir.VectorType(ir.IntType(8 * self._unit), LINE // self._unit)
            starts = [*range(0, end - LINE, LINE), end - LINE]
            self._loads = {start: load(b, place, start, kind) for start in starts}

    def quarters(self, four: int, offset: int) -> Value:
        """Sixteen bytes of every block of the first or the second four, as WORDS."""
        return self._b.bitcast(self._parts(_blocks_of(four), offset, BYTES16), WORDS)

    def numbers(self, blocks: range, offset: int, kind: ir.IntType) -> Value:
        """A number of each of some blocks, as a vector."""
        parts = self._parts(blocks, offset, ir.VectorType(I8, kind.width // 8))
        return self._b.bitcast(parts, ir.VectorType(kind, len(blocks)))

    def _parts(self, blocks: range, offset: int, kind: ir.VectorType) -> Value:
        b, places = self._b, [self._size * block + offset for block in blocks]
        if not self._loads:
            number = ir.IntType(8 * kind.count)
            if kind is not BYTES16:
                return gather(b, [step(b, self._place, place) for place in places], 0, number)
            return join(b, [load(b, self._place, place, kind) for place in places])
        wanted = [self._find(at) for place in places for at in range(place, place + kind.count, self._unit)]
        count = LINE // self._unit
        result, known = None, {}
        for start, vector in self._loads.items():
            found = {i: at for i, (holder, at) in enumerate(wanted) if holder == start}
            if result is None or not known:
                result, known = vector, found
            elif found:
                order = [known.get(i, count + found[i] if i in found else 0) for i in range(count)]
                result, known = shuffle(b, result, vector, order), {i: i for i in (*known, *found)}
        return shuffle(b, result, result, [known[i] for i in range(len(wanted))])

    def _find(self, place: int) -> tuple[int, int]:
        """Which load holds a unit, and at what index."""
        start = next(start for start in self._loads if start <= place <= start + LINE - self._unit)
        return start, (place - start) // self._unit


class Row(ABC):
    """How one type lies in the file."""

    codes_at = 2
    """Bytes before the codes."""

    @abstractmethod
    def codes(self, b: ir.IRBuilder, blocks: Stretch, four: int) -> list[Value]:
        """The first and the second 16 codes of the first or the second four blocks, as WORDS."""

    def scales(self, b: ir.IRBuilder, blocks: Stretch) -> list[Value]:
        """The factors of eight blocks, and the minima to subtract if there are any."""
        return [emit.half_to_float(b, blocks.numbers(ALL, 0, I16))]


class RowBytes(Row):
    """Q8_0: see `blocks32.Q8_0`."""

    def codes(self, b: ir.IRBuilder, blocks: Stretch, four: int) -> list[Value]:
        """Signed bytes, made unsigned."""
        halves = [blocks.quarters(four, self.codes_at + 16 * half) for half in range(2)]
        return [b.xor(words, same(words, -0x7F7F7F80)) for words in halves]


class RowNibbles(Row):
    """Q4_0: see `blocks32.Nibbles`."""

    def codes(self, b: ir.IRBuilder, blocks: Stretch, four: int) -> list[Value]:
        """Low halves of 16 bytes, and high ones."""
        stored = blocks.quarters(four, self.codes_at)
        return [mask(b, shift_right(b, stored, shift), 0x0F0F0F0F) for shift in (0, 4)]


class RowFiveBits(RowNibbles):
    """Q5_0: see `blocks32.FiveBits`."""

    codes_at = 6

    def codes(self, b: ir.IRBuilder, blocks: Stretch, four: int) -> list[Value]:
        """Bit j of the word before the low halves belongs to code j."""
        bits, result = blocks.numbers(_blocks_of(four), self.codes_at - 4, I32), []
        for low, shift in zip(super().codes(b, blocks, four), (0, 16), strict=True):
            fifth = b.trunc(shift_right(b, bits, shift), ir.VectorType(I16, FOUR))
            codes = b.bitcast(low, BYTES64)
            both = b.or_(codes, same(codes, 16))
            result.append(b.bitcast(b.select(b.bitcast(fifth, BITS64), both, codes), WORDS))
        return result


class Minima(Row):
    """Types that add a minimum, which follows the scale."""

    def scales(self, b: ir.IRBuilder, blocks: Stretch) -> list[Value]:
        """Halves d and m."""
        pairs, kind = blocks.numbers(ALL, 0, I32), ir.VectorType(I16, AT_ONCE)
        scale, minimum = (emit.half_to_float(b, b.trunc(shift_right(b, pairs, shift), kind)) for shift in (0, 16))
        return [scale, b.fneg(minimum)]


class RowQ41(Minima, RowNibbles):
    """See `blocks32.Q4_1`."""

    codes_at = 4


class RowQ51(Minima, RowFiveBits):
    """See `blocks32.Q5_1`."""

    codes_at = 8


class RowTable(Row):
    """IQ4_NL: see `tables`."""

    def codes(self, b: ir.IRBuilder, blocks: Stretch, four: int) -> list[Value]:
        """As RowNibbles; the high halves of the bytes may be anything."""
        stored = blocks.quarters(four, self.codes_at)
        return [stored, shift_right(b, stored, 4)]


class RowMXFP4(RowTable):
    """See `tables.MXFP4`."""

    codes_at = 1

    def scales(self, b: ir.IRBuilder, blocks: Stretch) -> list[Value]:
        """2^(e - 128)."""
        return [power_of_two(b, b.zext(blocks.numbers(ALL, 0, I8), WORDS8))]


ROWS: dict[BlockType, Row] = {
    BlockType.Q8_0: RowBytes(),
    BlockType.Q4_0: RowNibbles(),
    BlockType.Q4_1: RowQ41(),
    BlockType.Q5_0: RowFiveBits(),
    BlockType.Q5_1: RowQ51(),
    BlockType.IQ4_NL: RowTable(),
    BlockType.MXFP4: RowMXFP4(),
}


def by_rows32(block_type: BlockType, isa: Isa) -> bool:
    """Whether a token goes through the rows of a type one by one. With 256 bits that is not faster."""
    return block_type in ROWS and isa.row_parts == 2


class RowwiseScaled(ScaledBlocks):
    """A type with blocks of 32 whose rows a single token goes through one by one."""

    least = AT_ONCE * BLOCK

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
        """See Matmul. Inputs in order, and what waits, are where panels would be."""
        if len(xs) > 1:
            super().emit_stream(b, raw, ahead, xs, ys, k, lines)
            return
        (x,), (y,) = xs, ys
        blocks = self.blocks(b, k)
        groups = b.lshr(b.add(blocks, i64(AT_ONCE - 1)), i64(3))
        waiting = step(b, lines, b.mul(groups, i64(self._group_bytes)))
        pitch = b.add(b.shl(blocks, i64(2)), i64(ROW_WORD))  # rows a power of two apart would share lines of the cache
        with emit.loop(b, groups) as each:
            self._order_inputs(b, x, _first_of(b, each.index, blocks), self._group(b, lines, each.index))
        with emit.loop(b, i64(LANES)) as down:
            row, parts = (step(b, p, b.mul(down.index, s)) for p, s in ((raw.first, raw.stride), (waiting, pitch)))
            with emit.loop(b, groups) as each:
                first = _first_of(b, each.index, blocks)
                place = step(b, row, b.mul(first, i64(self.type.block_bytes)))
                fetch(b, step(b, place, AHEAD), AT_ONCE * self.type.block_bytes)
                target = step(b, parts, b.shl(first, i64(2)))
                for i, values in enumerate(self._parts(b, place, self._group(b, lines, each.index))):
                    store(b, step(b, target, b.mul(pitch, i64(LANES * i))), 0, values, align=4)
        columns = [RawRows(b, step(b, waiting, b.mul(pitch, i64(LANES * i))), pitch) for i in range(self._floats)]
        done, total = i64(0), emit.real(0.0, FLOATS)
        for count in (AT_ONCE, 1):
            with emit.loop(b, b.sub(blocks, i64(count - 1)), total, start=done, step=count) as each:
                inputs = step(b, x, b.mul(each.index, i64(self.codes.block_bytes)))
                found = [rows.columns(b.shl(each.index, i64(2)), count) for rows in columns]
                total = each.values[0]
                for i in range(count):
                    for values, offset in zip(found, (self.codes.scale, self.codes.scaled_sum), strict=False):
                        scale = load(b, inputs, self.codes.block_bytes * i + offset, F32, align=4)
                        total = fused(b, b.bitcast(values[i], FLOATS), splat(b, scale), total)
                each.carry(total)
            done, total = each.index, each.values[0]
        store(b, y, 0, total, align=4)

    @property
    def _floats(self) -> int:
        """Of a block of a row, that wait."""
        return 1 + self.layout.minima

    @property
    def _vectors(self) -> int:
        """Of the inputs of four blocks in order."""
        return 2 * len(self.codes.words(0))

    @property
    def _group_bytes(self) -> int:
        return ROW_WORD * (AT_ONCE // FOUR * self._vectors + (self.offset != 0))

    def _group(self, b: ir.IRBuilder, lines: Value, index: Value) -> Value:
        """The inputs in order of some eight blocks."""
        return step(b, lines, b.mul(index, i64(self._group_bytes)))

    def _order_inputs(self, b: ir.IRBuilder, x: Value, first: Value, target: Value) -> None:
        """Those of eight blocks, from `first` on: vectors of four blocks, then what sums start from."""
        places = [step(b, x, b.mul(b.add(first, i64(i)), i64(self.codes.block_bytes))) for i in range(AT_ONCE)]
        vectors = []
        for four in range(AT_ONCE // FOUR):
            own = [places[i] for i in _blocks_of(four)]
            for half in range(2):
                words = [self.codes.words(FOUR * half + i) for i in range(FOUR)]
                if self.codes.wide:
                    for offsets in zip(*words, strict=True):
                        vectors.append(_in_turns(b, [gather(b, own, offset, I32) for offset in offsets]))
                else:  # bytes lie as they are multiplied
                    sixteen = join(b, [load(b, place, words[0][0], BYTES16) for place in own])
                    vectors.append(b.bitcast(sixteen, WORDS))
        for i, vector in enumerate(vectors):
            store(b, target, ROW_WORD * i, vector, align=ROW_WORD)
        if self.offset:
            sums = gather(b, places, self.codes.sum, I32)
            store(b, target, ROW_WORD * len(vectors), b.mul(sums, same(sums, self.offset)), align=ROW_WORD // 2)

    def _parts(self, b: ir.IRBuilder, place: Value, inputs: Value) -> list[Value]:
        """Of eight blocks: factors times sums, and the minima if there are any."""
        blocks = Stretch(b, place, self.type.block_bytes, self.isa)
        sums = _folded(b, *(self._sums(b, blocks, four, inputs) for four in range(AT_ONCE // FOUR)))
        if self.offset:
            start = load(b, inputs, 2 * self._vectors * ROW_WORD, WORDS8, align=ROW_WORD // 2)
            sums = b.add(sums, start)
        factor, *minima = ROWS[self.type].scales(b, blocks)
        return [b.fmul(b.sitofp(sums, FLOATS8), factor), *minima]

    def _sums(self, b: ir.IRBuilder, blocks: Stretch, four: int, inputs: Value) -> Value:
        """Of four blocks, a quarter each whose words add up to theirs."""
        layout, isa, number = self.layout, self.isa, self._vectors * four
        total: Sums = isa.start(b, ZEROS)
        for words in ROWS[self.type].codes(b, blocks, four):
            operand = self._entries(b, words) if layout.table else isa.codes(b, words, self.bits)
            end = number + len(self.codes.words(0))
            vectors = [load(b, inputs, ROW_WORD * i, WORDS, align=ROW_WORD) for i in range(number, end)]
            total = isa.dot4(b, total, operand, isa.inputs(b, vectors, self.bits), self.bits)
            number = end
        return isa.total(b, total)

    def _entries(self, b: ir.IRBuilder, words: Value) -> Operand:
        """Of the table, at the low half of every byte: vpermb looks at six bits of it, so entries come four times."""
        table, isa = self.layout.table, self.isa
        if type(isa) is not Avx512Vnni or not host().has("avx512vbmi"):
            return isa.entries(b, mask(b, words, 0x0F0F0F0F), table)
        entries = ir.Constant(BYTES64, [ir.Constant(I8, entry + isa.table_offset(table)) for entry in table * 4])
        looked_up = emit.call(b, "llvm.x86.avx512.permvar.qi.512", BYTES64, [entries, b.bitcast(words, BYTES64)])
        return isa.codes(b, b.bitcast(looked_up, WORDS), self.bits)


def _first_of(b: ir.IRBuilder, group: Value, blocks: Value) -> Value:
    """The first block of eight: the last ones overlap with those before."""
    first, last = b.shl(group, i64(3)), b.sub(blocks, i64(AT_ONCE))
    return b.select(b.icmp_signed("<", first, last), first, last)


def _blocks_of(four: int) -> range:
    return range(FOUR * four, FOUR * (four + 1))


def _in_turns(b: ir.IRBuilder, words: Sequence[Value]) -> Value:
    """Four vectors of four, transposed."""
    order = [FOUR * i + j for j in range(FOUR) for i in range(FOUR)]
    return shuffle(b, join(b, words[:2]), join(b, words[2:]), order)


def _folded(b: ir.IRBuilder, first: Value, second: Value) -> Value:
    """The sums of eight quarters, in their order: neighbours are added twice."""
    low, high = split(b, _neighbours(b, first, second), AT_ONCE)
    total = _neighbours(b, low, high)  # of blocks 0 4 2 6, and 1 5 3 7
    return shuffle(b, total, total, [0, 4, 2, 6, 1, 5, 3, 7])


def _neighbours(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    """The sums of neighbours: in every quarter two of x, then two of y."""
    quarters = range(0, x.type.count, FOUR)
    orders = [
        [q + i + x.type.count * second for q in quarters for second in (0, 1) for i in pair]
        for pair in ((0, 2), (1, 3))
    ]
    return b.add(*(shuffle(b, x, y, order) for order in orders))
