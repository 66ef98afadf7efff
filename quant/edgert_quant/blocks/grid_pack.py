"""Points, signs and scales of the codebook types into the bytes of blocks; see the `block_iq*` of `ggml-common.h`.

Lanes hold the groups of one super-block (16 weights a group) or two (32 weights).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from llvmlite import ir

from edgert_quant.blocks.grid_scan import Points
from edgert_quant.blocks.grid_search import SECOND, Finder, OddScales
from edgert_quant.blocks.lanes import COUNT, I8, I16, I32, Lanes, Value, address, gather, store
from edgert_quant.blocks.pack import put_half


class Groups:
    """What blocks store of sixteen groups, as int32 lanes: indices of points, eight signs a unit, levels (half of an
    odd factor, rounded down), and the groups' places.
    """

    def __init__(self, finder: Finder, scales: OddScales, starts: list[Value]) -> None:
        b = self.b = finder.b
        codes = [finder.codes[p] for p in range(finder.codes.length)]
        self.indices = [look_up(b, finder.points, code) for code in codes]
        self.negative = [code >> SECOND.bit_length() - 1 & 1 for code in codes]
        self.signs = [finder.signs[u] for u in range(finder.book.units)]
        self.level = ((scales.odd - 1) * 0.5).integer()
        self.starts = starts
        self.each = COUNT // len(starts)
        self.d = scales.d

    def put(self, values: Lanes, kind: ir.IntType, offset: int) -> None:
        """The low bits of every lane, side by side in their block from `offset` on."""
        for lane in range(COUNT):
            start, group = self.starts[lane // self.each], lane % self.each
            value = values.lane(lane)
            place = address(self.b, start, offset + group * kind.width // 8)
            store(self.b, value if kind.width == 32 else self.b.trunc(value, kind), place)

    def put_wide(self, values: Sequence[Lanes], offset: int) -> None:
        """Several words for every lane, side by side."""
        for lane in range(COUNT):
            start, group = self.starts[lane // self.each], lane % self.each
            for i, word in enumerate(values):
                store(self.b, word.lane(lane), address(self.b, start, offset + 4 * (len(values) * group + i)))

    def put_pairs(self, values: Lanes, width: int, offset: int) -> None:
        """A byte for every two lanes: `width` bits of the first one, then those of the second."""
        for lane in range(0, COUNT, 2):
            start, group = self.starts[lane // self.each], lane % self.each
            byte = self.b.or_(values.lane(lane), self.b.shl(values.lane(lane + 1), ir.Constant(I32, width)))
            store(self.b, self.b.trunc(byte, I8), address(self.b, start, offset + group // 2))

    def put_d(self, offset: int = 0) -> None:
        """The half d."""
        for i, start in enumerate(self.starts):
            put_half(self.b, self.d, i * self.each, address(self.b, start, offset))


def look_up(b: ir.IRBuilder, points: Points, codes: Lanes) -> Lanes:
    """The indices of points in the file, from their codes."""
    name = f"indices.{points.name}"
    entries = points.indices()
    kind = ir.ArrayType(I16, len(entries))
    if name not in b.module.globals:
        made = ir.GlobalVariable(b.module, kind, name)
        made.initializer, made.global_constant, made.linkage = ir.Constant(kind, entries), True, "internal"
    table = b.module.globals[name]
    place = codes & 0
    for digit in reversed(points.digits(codes)):
        place = place * len(points.levels) + digit
    zero = ir.Constant(I32, 0)
    places = [b.gep(table, [zero, place.lane(lane)], source_etype=kind) for lane in range(COUNT)]
    return gather(b, [b.zext(b.load(item, typ=I16), I32) for item in places])


def joined(values: Sequence[Lanes], width: int) -> Lanes:
    """Values side by side, the first one lowest."""
    return reduce(lambda word, item: word | item, (value << width * i for i, value in enumerate(values)))


def low(values: Sequence[Lanes]) -> list[Lanes]:
    """Their lower eight bits."""
    return [value & 255 for value in values]


def high(values: Sequence[Lanes]) -> list[Lanes]:
    """The bits above those."""
    return [value >> 8 for value in values]


def signs_and_level(groups: Groups) -> Lanes:
    """Four times seven signs, and the level."""
    return joined([item & 127 for item in groups.signs], 7) | groups.level << 28


def put_iq3_s(groups: Groups) -> None:
    """Half d, uint8 qs[64], a byte of the ninth bits for every eight of them, uint8 signs[32], four bytes of levels."""
    groups.put_d()
    groups.put_wide([joined(low(groups.indices[i : i + 4]), 8) for i in (0, 4)], 2)
    groups.put(joined(high(groups.indices), 1), I8, 66)
    groups.put(joined(groups.signs, 8), I32, 74)
    groups.put_pairs(groups.level, 4, 106)


def put_iq3_xxs(groups: Groups) -> None:
    """Half d, uint8 qs[64], eight words of signs and level."""
    groups.put_d()
    groups.put_wide([joined(groups.indices[i : i + 4], 8) for i in (0, 4)], 2)
    groups.put(signs_and_level(groups), I32, 66)


def put_iq2_s(groups: Groups) -> None:
    """Half d, uint8 qs[32], uint8 signs[32], a byte of the upper two bits of four indices, eight bytes of levels."""
    groups.put_d()
    groups.put(joined(low(groups.indices), 8), I16, 2)
    groups.put(joined(groups.signs, 8), I16, 34)
    groups.put_pairs(joined(high(groups.indices), 2), 4, 66)
    groups.put_pairs(groups.level, 4, 74)


def put_iq2_xs(groups: Groups) -> None:
    """Half d, uint16 qs[32] of nine bits of index and seven signs, eight bytes of levels."""
    groups.put_d()
    both = [index | (signs & 127) << 9 for index, signs in zip(groups.indices, groups.signs, strict=True)]
    groups.put(joined(both, 16), I32, 2)
    groups.put_pairs(groups.level, 4, 66)


def put_iq2_xxs(groups: Groups) -> None:
    """Half d, eight times four indices and a word of signs and level."""
    groups.put_d()
    groups.put_wide([joined(groups.indices, 8), signs_and_level(groups)], 2)


def put_iq1_s(groups: Groups) -> None:
    """Half d, uint8 qs[32], eight uint16: four times three upper bits, the level, whether the shift is negative."""
    groups.put_d()
    groups.put(joined(low(groups.indices), 8), I32, 2)
    groups.put(joined(high(groups.indices), 3) | groups.level << 12 | groups.negative[0] << 15, I16, 34)


def put_iq1_m(groups: Groups) -> None:
    """Uint8 qs[32], nibbles of three upper bits and whether the shift is negative, four uint16 of four levels and four
    bits of d each.
    """
    b = groups.b
    groups.put(joined(low(groups.indices), 8), I16, 0)
    upper = [index | sign << 3 for index, sign in zip(high(groups.indices), groups.negative, strict=True)]
    groups.put(joined(upper, 4), I8, 32)
    bits = groups.d.half_bits().lane(0)
    for i in range(4):
        word = b.shl(b.and_(b.lshr(bits, ir.Constant(I32, 4 * i)), ir.Constant(I32, 15)), ir.Constant(I32, 12))
        for j in range(4):
            word = b.or_(word, b.shl(groups.level.lane(4 * i + j), ir.Constant(I32, 3 * j)))
        store(b, b.trunc(word, I16), address(b, groups.starts[0], 48 + 2 * i))
