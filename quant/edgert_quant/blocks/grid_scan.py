"""The nearest point of a grid for sixteen groups of weights at once: exact, by sums over halves of points.

The weighted error of a point is a sum over its coordinates, each with one of a few levels. So the coordinates are cut
in two halves, the errors of all combinations of levels are added up for each half (81 of three levels for four
coordinates, 64 of eight levels for two), and a point costs the sum of two table entries. All points with the same
lower half share one of them: among these the upper half is a plain minimum. The sets of upper halves have much in
common, and so have the minima: for the 2048 points of IQ1, 750 of two numbers are enough.

Errors are whole numbers, at most `LARGEST_COST` for a coordinate, above `CODE_BITS` bits that say which levels were
added up: a minimum of such sums brings the combination along.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from itertools import combinations

from llvmlite import ir

from edgert_quant.blocks.grids import grid_levels, grid_points
from edgert_quant.blocks.lanes import COUNT, I32, POINTER, LaneArray, Lanes, Value, vector
from edgert_quant.blocks.types import BlockType

CODE_BITS = 8
"""Below each error: the levels of half a point."""

LARGEST_COST = 900_000.0
"""Of a coordinate: eight of them and a changed sign fit into the bits that are left."""


class Points:
    """A grid, as the scan sees it. A half's code has `digit` bits for each coordinate's level; the code of a point has
    that of its upper half from bit `CODE_BITS` on.
    """

    def __init__(self, kind: BlockType) -> None:
        self.levels = grid_levels(kind)
        points = grid_points(kind)
        self.size = points.shape[1]
        self.half = self.size // 2
        self.digit = (len(self.levels) - 1).bit_length()
        self.name = kind.name.lower()
        self._points = points.tolist()

    def rank(self, levels: Sequence[int]) -> int:
        """Where a table has the combination of these levels; also, over a whole point, its place among all."""
        return sum(level * len(self.levels) ** j for j, level in enumerate(levels))

    def code(self, levels: Sequence[int]) -> int:
        """The code of half a point."""
        return sum(level << self.digit * j for j, level in enumerate(levels))

    def by_lower_half(self) -> dict[tuple[int, ...], list[int]]:
        """The places of the upper halves that a lower half has in the grid."""
        found: dict[tuple[int, ...], list[int]] = {}
        for point in sorted(self._points):
            found.setdefault(tuple(point[: self.half]), []).append(self.rank(point[self.half :]))
        return found

    def indices(self) -> list[int]:
        """The index of the point at each place among all combinations of levels; 0 where there is none."""
        table = [0] * len(self.levels) ** self.size
        for index, point in enumerate(self._points):
            table[self.rank(point)] = index
        return table

    def value(self, digits: Lanes) -> Lanes:
        """The levels of these numbers (int32): evenly spaced, but for the last one."""
        first, second, *_, last = self.levels
        highest = len(self.levels) - 1
        even = digits.number() * (second - first) + first
        extra = last - first - (second - first) * highest
        return even + digits.equals(highest).where(even * 0 + extra, 0.0) if extra else even

    def digits(self, code: Lanes) -> list[Lanes]:
        """The levels of a point's coordinates, out of its code."""
        mask = (1 << self.digit) - 1
        starts = [CODE_BITS * half + self.digit * j for half in range(2) for j in range(self.half)]
        return [code >> start & mask for start in starts]


def combine(parts: Sequence[list[Lanes]], operator: Callable[[Lanes, Lanes], Lanes]) -> list[Lanes]:
    """From a list for every coordinate: what `operator` makes of each combination, in the order of `Points.rank`."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    low, high = (combine(part, operator) for part in (parts[:middle], parts[middle:]))
    return [operator(first, second) for second in high for first in low]


Pair = tuple[int, int]


def share(sets: Sequence[Iterable[int]], first: int) -> tuple[list[Pair], list[list[int]]]:
    """Sets as unions of what several have in common: pairs, numbered from `first` on, that stand for the union of two
    numbers, which may be of earlier pairs; and the sets with those in place of their members. Greedy: the pair that
    most sets have is next.
    """
    rest = [set(items) for items in sets]
    counts = Counter(pair for items in rest for pair in combinations(sorted(items), 2))
    pairs: list[Pair] = []
    while counts:
        pair, uses = max(counts.items(), key=lambda item: (item[1], item[0]))
        if uses < 3:
            break
        number = first + len(pairs)
        pairs.append(pair)
        for items in rest:
            if items.issuperset(pair):
                items.difference_update(pair)
                for other in items:
                    for member in pair:
                        counts[min(member, other), max(member, other)] -= 1
                    counts[other, number] += 1
                items.add(number)
        del counts[pair]
    return pairs, [sorted(items) for items in rest]


class Tables:
    """Room for the errors of the two halves of a point, as they are and with the cheapest sign changed."""

    def __init__(self, b: ir.IRBuilder, points: Points, *, flips: bool) -> None:
        self.points = points
        length = len(points.levels) ** points.half
        self.plain = [LaneArray(b, length, I32) for _ in range(2)]
        self.flipped = [LaneArray(b, length, I32) for _ in range(2)] if flips else []
        self._found = LaneArray(b, 2, I32)

    def fill(self, costs: Sequence[list[Lanes]], flips: Sequence[list[Lanes]] | None) -> None:
        """`costs`: of every coordinate at every level, as int32; `flips`: what it costs to change its sign there."""
        points = self.points
        for half in range(2):
            part = slice(points.half * half, points.half * (half + 1))
            coded = [[item << CODE_BITS for item in own] for own in costs[part]]
            if half:
                coded = [[c | i << points.digit * j for i, c in enumerate(own)] for j, own in enumerate(coded)]
            sums = combine(coded, lambda first, second: first + second)
            for rank, item in enumerate(sums):
                self.plain[half][rank] = item
            if flips is not None:
                least = combine(flips[part], lambda first, second: first.minimum(second))
                for rank, item in enumerate(sums):
                    self.flipped[half][rank] = item + (least[rank] << CODE_BITS)

    def scan(self, b: ir.IRBuilder, *, flipped: bool = False) -> tuple[Lanes, Lanes]:
        """The least error and the point's code; `flipped`: with one sign changed, in the half where that is cheaper."""
        tables = [*self.plain, *(self.flipped if flipped else [])]
        b.call(_scanner(b.module, self.points, flipped), [table.start for table in (*tables, self._found)])
        return self._found[0], self._found[1]


def _scanner(module: ir.Module, points: Points, flipped: bool) -> ir.Function:
    """A function (lower table, upper table, the flipped ones, found), one for all uses: it is long."""
    name = f"scan.{points.name}{'.flipped' if flipped else ''}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER] * (5 if flipped else 3)), name)
    function.attributes.add("noinline")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    *tables, found = function.args

    def entry(table: Value, rank: int) -> Lanes:
        place = b.gep(table, [ir.Constant(I32, rank)], source_etype=vector(I32))
        return Lanes(b, b.load(place, typ=vector(I32)))

    halves = points.by_lower_half()
    pairs, sets = share(list(halves.values()), len(points.levels) ** points.half)

    def least(table: Value) -> list[Lanes]:
        """For each lower half."""
        made: dict[int, Lanes] = {}

        def number(place: int) -> Lanes:
            if place not in made:
                made[place] = entry(table, place)
            return made[place]

        for i, (left, right) in enumerate(pairs, len(points.levels) ** points.half):
            made[i] = number(left).minimum(number(right))
        return [reduce(Lanes.minimum, [number(place) for place in items]) for items in sets]

    plain = least(tables[1])
    changed = least(tables[3]) if flipped else []
    best = lower = Lanes(b, ir.Constant(vector(I32), [2**31 - 1] * COUNT))
    for i, levels in enumerate(halves):
        place = points.rank(levels)
        error = entry(tables[0], place) + (changed if flipped else plain)[i]
        if flipped:
            error = error.minimum(entry(tables[2], place) + plain[i])
        better = error < best
        best = better.where(error, best)
        lower = better.where(lower ^ lower | points.code(levels), lower)
    mask = (1 << CODE_BITS) - 1
    for index, result in enumerate((best >> CODE_BITS, (best & mask) << CODE_BITS | lower)):
        place = b.gep(found, [ir.Constant(I32, index)], source_etype=vector(I32))
        b.store(result.value, place)
    b.ret_void()
    return function
