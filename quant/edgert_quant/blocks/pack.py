"""Codes and scales into the bytes of blocks: the inverse of `unpack32` and `unpack256`, in LLVM IR.

Codes wait as rows of bytes, one row to a group of weights; bytes of sixteen or thirty-two weights are then combined by
vector operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from edgert_quant.blocks.codes import Codes
from edgert_quant.blocks.lanes import (
    COUNT,
    I8,
    I32,
    I64,
    Lanes,
    Value,
    address,
    allocate,
    count,
    load,
    quarter,
    store,
    transposed,
)
from edgert_quant.blocks.search import Grid, Tile

PutSuper = Callable[["ir.IRBuilder", "CodeRows", "list[Value]", Lanes, Lanes], None]
"""Stores super-blocks: (builder, codes, where they go, their factors, the groups' scales)."""


class CodeRows:
    """Codes of sixteen groups, a byte each: group k's are the `length` bytes from row k on."""

    def __init__(self, tile: Tile, grid: Grid, codes: Codes) -> None:
        """Round every weight of the tile on the grid; the byte is the number of its code."""
        b, self.b, self.length = tile.b, tile.b, tile.length
        self.start = allocate(b, I8, COUNT * tile.length)

        with count(b, tile.length // 16) as part:
            first = b.mul(part, ir.Constant(I64, 16))
            codes_of = [_code(tile, grid, codes, b.add(first, ir.Constant(I64, i))) for i in range(16)]
            for k, piece in enumerate(_sixteen_bytes(codes_of)):
                place = b.add(first, ir.Constant(I64, k * tile.length))
                store(b, piece, address(b, self.start, place))

    def take(self, offset: Value | int, length: int) -> Value:
        """A vector of `length` codes from byte `offset` on."""
        return load(self.b, ir.VectorType(I8, length), address(self.b, self.start, offset))


def _code(tile: Tile, grid: Grid, codes: Codes, j: Value) -> Lanes:
    """The number of weight j's code."""
    place = tile.x[j] * grid.inverse
    return codes.index(place if grid.shift is None else place + grid.shift)


def _sixteen_bytes(numbers: Sequence[Lanes]) -> list[Value]:
    """Of sixteen numbers below 256, a vector of all for each lane."""
    words = []  # of each lane, bytes 4 i to 4 i + 3
    for i in range(0, 16, 4):
        word = numbers[i]
        for k in range(1, 4):
            word = word | numbers[i + k] << 8 * k
        words.append(word)
    rows = transposed(numbers[0].b, words)
    return [quarter(rows[lane % 4], lane // 4) for lane in range(COUNT)]


def put_nibbles(tile: Tile, grid: Grid, codes: Codes, places: Sequence[Value], offset: int) -> None:
    """Groups of 32 weights as sixteen bytes each, `offset` bytes after its place: the code of weight j in the low half
    of byte j, that of weight j + 16 in the high half.
    """
    b = tile.b
    low, high = ([_code(tile, grid, codes, ir.Constant(I64, j)) for j in range(first, first + 16)] for first in (0, 16))
    pairs = [one | two << 4 for one, two in zip(low, high, strict=True)]
    for place, piece in zip(places, _sixteen_bytes(pairs), strict=True):
        store(b, piece, address(b, place, offset))


def filled(like: Value, number: int) -> Value:
    """A byte vector of one number."""
    return ir.Constant(like.type, [number] * like.type.count)


def halves(b: ir.IRBuilder, low: Value, high: Value) -> Value:
    """Bytes with the low four bits of two codes."""
    mask = filled(low, 15)
    return b.or_(b.and_(low, mask), b.shl(high, filled(high, 4)))


def bit(b: ir.IRBuilder, codes: Value, source: int, target: int) -> Value:
    """Bit `source` of every code, moved to bit `target`."""
    only = b.and_(b.lshr(codes, filled(codes, source)), filled(codes, 1))
    return b.shl(only, filled(codes, target))


def put_half(b: ir.IRBuilder, values: Lanes, lane: int, pointer: Value) -> None:
    """One lane of values that are exact in half precision."""
    store(b, b.trunc(values.half_bits().lane(lane), ir.IntType(16)), pointer)


def put_small(tile: Tile, grid: Grid, codes: Codes, starts: list[Value], halfs: list[Lanes], *, five: bool) -> None:
    """Blocks of 32: scale (and minimum), then bit 4 of the codes if `five`, then nibbles. One block to a lane."""
    b, place = tile.b, 2 * len(halfs)
    for lane, start in enumerate(starts):
        for i, values in enumerate(halfs):
            put_half(b, values, lane, address(b, start, 2 * i))
    if not five:
        put_nibbles(tile, grid, codes, starts, place)
        return
    rows = CodeRows(tile, grid, codes)
    for lane, start in enumerate(starts):
        both = rows.take(32 * lane, 32)
        high = b.icmp_unsigned("!=", b.and_(both, filled(both, 16)), filled(both, 0))
        store(b, b.bitcast(high, I32), address(b, start, place))
        nibbles = halves(b, rows.take(32 * lane, 16), rows.take(32 * lane + 16, 16))
        store(b, nibbles, address(b, start, place + 4))


def put_bytes(b: ir.IRBuilder, rows: CodeRows, starts: list[Value], scale: Lanes, low: int) -> None:
    """Q8_0: scale, then signed codes. One block to a lane."""
    for lane, start in enumerate(starts):
        put_half(b, scale, lane, address(b, start, 0))
        codes = rows.take(32 * lane, 32)
        store(b, b.add(codes, filled(codes, low % 256)), address(b, start, 2))


def put_affine(
    b: ir.IRBuilder,
    rows: CodeRows,
    starts: list[Value],
    units: tuple[Lanes, Lanes],
    scales: tuple[Lanes, Lanes],
    *,
    five: bool,
) -> None:
    """Q4_K or (`five`) Q5_K: two super-blocks, eight lanes each."""
    scale, floor = (values.integer() for values in scales)
    for half, start in enumerate(starts):
        first = 8 * half
        for i, values in enumerate(units):
            put_half(b, values, first, address(b, start, 2 * i))
        for i, byte in enumerate(_twelve_bytes(b, scale, floor, first)):
            store(b, byte, address(b, start, 4 + i))
        place = 16
        if five:
            groups = [rows.take(32 * (first + g), 32) for g in range(8)]
            high = bit(b, groups[0], 4, 0)
            for g in range(1, 8):
                high = b.or_(high, bit(b, groups[g], 4, g))
            store(b, high, address(b, start, place))
            place += 32
        for chunk in range(4):
            even = 32 * (first + 2 * chunk)
            nibbles = halves(b, rows.take(even, 32), rows.take(even + 32, 32))
            store(b, nibbles, address(b, start, place + 32 * chunk))


def _twelve_bytes(b: ir.IRBuilder, scale: Lanes, floor: Lanes, first: int) -> list[Value]:
    """Eight 6-bit scales and eight 6-bit minima; see `unpack256.scales_and_mins`."""

    def number(value: int) -> Value:
        return ir.Constant(I32, value)

    def upper(values: Lanes, i: int) -> Value:
        """Scale i below the upper two bits of scale i + 4."""
        far = b.lshr(values.lane(first + i + 4), number(4))
        return b.or_(values.lane(first + i), b.shl(far, number(6)))

    words = [upper(scale, i) for i in range(4)] + [upper(floor, i) for i in range(4)]
    for i in range(4, 8):
        low = b.and_(scale.lane(first + i), number(15))
        words.append(b.or_(low, b.shl(floor.lane(first + i), number(4))))
    return [b.trunc(word, I8) for word in words]


def put_iq4(b: ir.IRBuilder, rows: CodeRows, starts: list[Value], d: Lanes, scale: Lanes) -> None:
    """IQ4_XS: two super-blocks, eight lanes each; see `ggml-common.h`, `block_iq4_xs`: half d, uint16 of the upper two
    bits of the scales, four bytes of two times their lower four, nibbles as in blocks of 32.
    """
    levels = scale.integer() + 32
    for half, start in enumerate(starts):
        lanes = [levels.lane(8 * half + g) for g in range(8)]

        def joined(mask: int, right: int, width: int, lanes: list[Value] = lanes) -> Value:
            """Some bits of every scale, side by side."""
            word = ir.Constant(I32, 0)
            for g, level in enumerate(lanes):
                part = b.and_(b.lshr(level, ir.Constant(I32, right)), ir.Constant(I32, mask))
                word = b.or_(word, b.shl(part, ir.Constant(I32, width * g)))
            return word

        put_half(b, d, 8 * half, address(b, start, 0))
        store(b, b.trunc(joined(3, 4, 2), ir.IntType(16)), address(b, start, 2))
        store(b, joined(15, 0, 4), address(b, start, 4))
        for g in range(8):
            first = 32 * (8 * half + g)
            store(b, halves(b, rows.take(first, 16), rows.take(first + 16, 16)), address(b, start, 8 + 16 * g))


def two_bits(b: ir.IRBuilder, rows: CodeRows, start: Value, offset: int) -> None:
    """The lower two bits of 256 codes: bits 2 s and 2 s + 1 of byte 32 h + l are of code 128 h + 32 s + l."""
    for half in range(2):
        byte = None
        for s in range(4):
            codes = rows.take(128 * half + 32 * s, 32)
            part = b.shl(b.and_(codes, filled(codes, 3)), filled(codes, 2 * s))
            byte = part if byte is None else b.or_(byte, part)
        store(b, byte, address(b, start, offset + 32 * half))


def put_q2(
    b: ir.IRBuilder, rows: CodeRows, start: Value, units: tuple[Lanes, Lanes], scales: tuple[Lanes, Lanes]
) -> None:
    """Q2_K: one super-block, sixteen lanes; see `unpack256.q2_k`."""
    scale, floor = (values.integer().bytes() for values in scales)
    store(b, halves(b, scale, floor), address(b, start, 0))
    two_bits(b, rows, start, 16)
    for i, values in enumerate(units):
        put_half(b, values, 0, address(b, start, 80 + 2 * i))


def put_q3(b: ir.IRBuilder, rows: CodeRows, starts: list[Value], d: Lanes, scale: Lanes) -> None:
    """Q3_K: one super-block, sixteen lanes; see `unpack256.q3_k`."""
    (start,) = starts
    high = bit(b, rows.take(0, 32), 2, 0)
    for g in range(1, 8):
        high = b.or_(high, bit(b, rows.take(32 * g, 32), 2, g))
    store(b, high, address(b, start, 0))
    two_bits(b, rows, start, 32)
    levels = (scale.integer() + 32).bytes()
    store(b, halves(b, _part(b, levels, 0, 8), _part(b, levels, 8, 8)), address(b, start, 96))
    upper = None
    for g in range(4):
        part = _part(b, levels, 4 * g, 4)
        part = b.shl(b.lshr(part, filled(part, 4)), filled(part, 2 * g))
        upper = part if upper is None else b.or_(upper, part)
    store(b, upper, address(b, start, 104))
    put_half(b, d, 0, address(b, start, 108))


def _part(b: ir.IRBuilder, values: Value, first: int, length: int) -> Value:
    """Some lanes of a byte vector."""
    order = ir.Constant(ir.VectorType(I32, length), list(range(first, first + length)))
    return b.shuffle_vector(values, values, order)


def put_q6(b: ir.IRBuilder, rows: CodeRows, starts: list[Value], d: Lanes, scale: Lanes) -> None:
    """Q6_K: one super-block, sixteen lanes; see `unpack256.q6_k`."""
    (start,) = starts
    for half in range(2):
        quarter = [rows.take(128 * half + 32 * s, 32) for s in range(4)]
        store(b, halves(b, quarter[0], quarter[2]), address(b, start, 64 * half))
        store(b, halves(b, quarter[1], quarter[3]), address(b, start, 64 * half + 32))
        high = b.lshr(quarter[0], filled(quarter[0], 4))
        for s in range(1, 4):
            high = b.or_(high, b.shl(b.lshr(quarter[s], filled(high, 4)), filled(high, 2 * s)))
        store(b, high, address(b, start, 128 + 32 * half))
    store(b, scale.integer().bytes(), address(b, start, 192))
    put_half(b, d, 0, address(b, start, 208))
