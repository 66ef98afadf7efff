"""The search for scales: sixteen groups of weights at a time, one to a lane (see `lanes`).

All searches minimize the same thing, the weighted squared error of a group: the sum over j of w[j] (x[j] - y[j])²,
where y is what the codes will be read back as and w is the importance of each weight. It is a least-squares problem in
the scale (and the offset) once the codes are fixed, and rounding once the scale is fixed. So: round on several starting
grids, solve for each, keep the best, and from there round and solve again. The starting grids differ in how much of the
group's range they cover: covering less makes steps finer and clips the extremes, which often pays.

With the codes fixed, the least error is a function of a few sums over the group: a starting grid costs one pass over
the weights, and its error none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from llvmlite import ir

from edgert_quant.blocks.codes import Codes, Range
from edgert_quant.blocks.lanes import (
    COUNT,
    F32,
    I32,
    I64,
    LaneArray,
    Lanes,
    Value,
    Variable,
    address,
    count,
    for_each,
    joined,
    load,
    splat,
    transposed,
    vector,
)

TINY = 1e-12
"""Groups no larger than this are zero: the finest step of half precision is 6e-8."""

INFINITY = 3e38
"""More than any error."""

MARGIN = 0.01
"""Divided by the square of the number of codes: the share of what a grid explains of a group's sum of squares by which
it must be better than the grids tried before it. It is about a hundredth of the error, and more than rounding noise. On
a constant group, where every grid fits, all groups of a super-block must stay with the same one.
"""

HALF = 0.49
"""Nearly half a step: what lies so far beyond an extreme code is rounded to it."""

Place = float
"""A code, or a place between or beyond codes."""


@dataclass(frozen=True)
class Effort:
    """How often each starting grid is rounded and solved before its error counts, and then the best of them again."""

    passes: int
    polish: int


QUICK, NORMAL, THOROUGH = Effort(1, 1), Effort(1, 2), Effort(2, 2)


@dataclass
class Tile:
    """Sixteen groups of `length` weights. `w` is None where all weights count alike."""

    b: ir.IRBuilder
    length: int
    x: LaneArray
    w: LaneArray | None

    def weight(self, j: Value) -> Lanes | float:
        """The importance of weight j."""
        return 1.0 if self.w is None else self.w[j]

    def weigh(self, value: Lanes, j: Value) -> Lanes:
        """`value` times the importance of weight j."""
        return value if self.w is None else value * self.w[j]

    def total(self) -> Lanes:
        """Sum of w."""
        if self.w is None:
            return splat(self.b, self.length)
        total = Variable(self.b, splat(self.b, 0))
        with count(self.b, self.length) as j:
            total.add(self.w[j])
        return total.get()


@dataclass
class Sums:
    """Weighted sums over a group for codes q of one grid: of q, q², x q."""

    q: Lanes
    qq: Lanes
    xq: Lanes

    def across(self, lanes: int) -> Sums:
        """The same over each run of so many neighbouring groups."""
        return Sums(*(item.across(lanes, "+") for item in (self.q, self.qq, self.xq)))

    def explained(self, scale: Lanes, floor: Lanes, totals: Totals) -> Lanes:
        """By how much the squared error of y = scale · q + floor is less than that of y = 0."""
        of_scale = scale * (self.xq * 2 - scale * self.qq)
        return of_scale + floor * (totals.x * 2 - scale * self.q * 2 - floor * totals.w)


@dataclass
class Totals:
    """Weighted sums over a group: of 1 and of x."""

    w: Lanes
    x: Lanes


@dataclass
class Grid:
    """Codes of x are those nearest to x · inverse + shift; `inside`: no weight lies half a step beyond the extremes."""

    inverse: Lanes
    shift: Lanes | None = None
    inside: bool = False


def new_tile(b: ir.IRBuilder, length: int, weighted: bool) -> Tile:
    """Room for a tile."""
    return Tile(b, length, LaneArray(b, length), LaneArray(b, length) if weighted else None)


def read_transposed(b: ir.IRBuilder, into: LaneArray, starts: Value) -> Lanes:
    """Lane k of item j becomes float32 number j after the address `starts[k]` (an i64 array of sixteen).

    Returns the greatest magnitudes as bits, in which infinities and NaNs are the greatest of all.
    """
    largest = Variable(b, Lanes(b, ir.Constant(vector(I32), [0] * COUNT)))
    rows = [b.load(b.gep(starts, [ir.Constant(I64, k)], source_etype=I64), typ=I64) for k in range(COUNT)]
    with count(b, into.length // 4) as part:
        place = b.mul(part, ir.Constant(I64, 16))
        pieces = [load(b, ir.VectorType(F32, 4), address(b, row, place)) for row in rows]
        quarters = [joined(b, pieces[k::4]) for k in range(4)]
        for i, item in enumerate(transposed(b, quarters)):
            into[b.add(b.mul(part, ir.Constant(I64, 4)), ir.Constant(I64, i))] = item
            largest.set(largest.get().maximum(item.bits() & 0x7FFFFFFF))
    return largest.get()


def extent(tile: Tile) -> tuple[Lanes, Lanes]:
    """Smallest and greatest weight of each group."""
    b = tile.b
    first = tile.x[ir.Constant(I64, 0)]
    low, high = Variable(b, first), Variable(b, first)
    with count(b, tile.length) as j:
        x = tile.x[j]
        low.set(low.get().minimum(x))
        high.set(high.get().maximum(x))
    return low.get(), high.get()


def code(x: Lanes, grid: Grid, codes: Codes) -> Lanes:
    """The code of x, as a float32 whole number."""
    place = x * grid.inverse
    if grid.shift is not None:
        place = place + grid.shift
    return codes.nearest(place, inside=grid.inside)


def sums(tile: Tile, grids: Sequence[Grid], codes: Codes) -> list[Sums]:
    """Round on each grid and add up; grids share the pass over the weights."""
    b = tile.b
    names = ("q", "qq", "xq")
    totals = [{name: Variable(b, splat(b, 0)) for name in names} for _ in grids]
    with count(b, tile.length) as j:
        x = tile.x[j]
        for grid, total in zip(grids, totals, strict=True):
            q = code(x, grid, codes)
            wq = tile.weigh(q, j)
            total["q"].add(wq)
            total["qq"].add(wq * q)
            total["xq"].add(wq * x)
    return [Sums(*(total[name].get() for name in names)) for total in totals]


def errors(tile: Tile, steps: Sequence[tuple[Lanes, Lanes | None]], codes: Codes) -> list[Lanes]:
    """The weighted squared error of each group for each (scale, minimum): y = scale · q - minimum."""
    b = tile.b
    totals = [Variable(b, splat(b, 0)) for _ in steps]
    grids = [grid_of(scale, minimum) for scale, minimum in steps]
    with count(b, tile.length) as j:
        x = tile.x[j]
        for (scale, minimum), grid, total in zip(steps, grids, totals, strict=True):
            difference = (x if minimum is None else x + minimum) - scale * code(x, grid, codes)
            total.add(tile.weigh(difference * difference, j))
    return [total.get() for total in totals]


def grid_of(scale: Lanes, minimum: Lanes | None) -> Grid:
    """The grid on which y = scale · q - minimum; a scale of zero gives code zero."""
    inverse = scale.inverse()
    return Grid(inverse, None if minimum is None else minimum * inverse)


def choose(
    b: ir.IRBuilder, best: Variable, score: Lanes, *chosen: tuple[Variable, Lanes], margin: Lanes | float = 0.0
) -> None:
    """Where `score` is below `best` by more than `margin`, make it the best and assign every chosen value."""
    better = score + margin < best.get()
    best.set(better.where(score, best.get()))
    for variable, value in chosen:
        variable.set(better.where(value, variable.get()))


def peaks(tile: Tile) -> Lanes:
    """The weight of greatest magnitude of each group."""
    least, greatest = extent(tile)
    return (greatest > -least).where(greatest, least)


def fit_scale(
    tile: Tile, codes: Codes, peak: Lanes, starts: Sequence[Place], effort: Effort, *, lanes: int = 1
) -> Lanes:
    """The best scale of y = scale · q, of either sign; one for each run of so many neighbouring groups.

    On the starting grids, `peak`, the weight of greatest magnitude, lies at these places.
    """
    b = tile.b
    best, scale = Variable(b, splat(b, INFINITY)), Variable(b, splat(b, 0))
    margin = MARGIN / codes.number**2

    def improve(grid: Grid, passes: int = 1) -> None:
        for _ in range(passes):
            found = sums(tile, [grid], codes)[0].across(lanes)
            exact = found.xq / found.qq.maximum(TINY**2)
            grid = grid_of(exact, None)
        explained = found.xq * exact
        choose(b, best, -explained, (scale, exact), margin=explained * margin)

    unit = (peak.magnitude() > TINY).where(1 / peak, 0.0)

    def start(place: Lanes, *, inside: bool) -> None:
        improve(Grid(unit * place, None, inside), effort.passes)

    reach = min(-codes.low, codes.high) + HALF
    for inside, some in groupby(starts, lambda place: abs(place) < reach):
        for_each(b, [(place,) for place in some], partial(start, inside=inside))
    with count(b, effort.polish):
        improve(grid_of(scale.get(), None))
    return scale.get()


def evenly(start: Place, stop: Place, number: int) -> list[Place]:
    """So many places from start to stop."""
    return [start + (stop - start) * i / max(number - 1, 1) for i in range(number)]


@dataclass
class Affine:
    """y = scale · q + floor, fitted to weights from which `base` was subtracted first."""

    scale: Lanes
    floor: Lanes


def center(tile: Tile, base: Lanes) -> Totals:
    """Subtract `base` from every weight; the sums are of what they are then."""
    b = tile.b
    total = Variable(b, splat(b, 0))
    with count(b, tile.length) as j:
        x = tile.x[j] - base
        tile.x[j] = x
        total.add(tile.weigh(x, j))
    return Totals(tile.total(), total.get())


def solve(found: Sums, totals: Totals, ceiling: Lanes | None) -> Affine:
    """Least squares for scale and floor with the codes fixed, the scale at least 0, the floor at most `ceiling`.

    Where all weights have the same code, the floor is 0.
    """
    determinant = totals.w * found.qq - found.q * found.q
    several = determinant > totals.w * found.qq * 1e-6
    slope = several.where(totals.w * found.xq - totals.x * found.q, found.xq)
    scale = (slope / several.where(determinant, found.qq.maximum(TINY**2))).maximum(0)
    floor = several.where((totals.x - scale * found.q) / totals.w, 0.0)
    if ceiling is not None:
        above = floor > ceiling
        alone = (found.xq - ceiling * found.q) / found.qq.maximum(TINY**2)
        scale = above.where(alone.maximum(0), scale)
        floor = above.where(ceiling, floor)
    return Affine(scale, floor)


Ends = tuple[Place, Place]
"""Where the least and the greatest weight lie."""


def covering(high: int, start: float, stop: float, number: int, leans: Sequence[float]) -> list[Ends]:
    """The grid of codes 0 to `high` that covers the whole range, and others that cover parts of it (or more than it),
    so many from `start` to `stop`; each part is tried at several places, 0 at the range's lower end, 1 at the upper.
    """
    parts = [(part, lean) for part in evenly(start, stop, number) for lean in leans]
    return [
        (-(1 - part) * lean * high / part, (1 - (1 - part) * lean) * high / part) for part, lean in [(1.0, 0.0), *parts]
    ]


def fit_affine(
    tile: Tile,
    extremes: tuple[Lanes, Lanes],
    totals: Totals,
    high: int,
    starts: Sequence[Ends],
    effort: Effort,
    *,
    bounded: bool,
) -> tuple[Affine, Sums]:
    """The best y = scale · q + floor with q in 0..high, for a tile centered on `extremes[0]`, which must not exceed the
    smallest weight; and the sums of its codes. `bounded`: the floor of the original weights must not be positive.

    On the starting grids, the extremes lie at these places.
    """
    b = tile.b
    least, greatest = extremes
    ceiling = -least if bounded else None
    width = greatest - least
    zero = splat(b, 0)
    best, scale, floor = Variable(b, splat(b, INFINITY)), Variable(b, zero), Variable(b, zero)
    kept = [Variable(b, zero) for _ in range(3)]
    codes = Range(0, high)
    margin = MARGIN / codes.number**2

    def improve(grid: Grid, passes: int = 1) -> None:
        for _ in range(passes):
            (found,) = sums(tile, [grid], codes)
            line = solve(found, totals, ceiling)
            grid = grid_of(line.scale, -line.floor)
        explained = found.explained(line.scale, line.floor, totals)
        now = (scale, line.scale), (floor, line.floor)
        then = zip(kept, (found.q, found.qq, found.xq), strict=True)
        choose(b, best, -explained, *now, *then, margin=explained * margin)

    unit = (width > TINY).where(1 / width, 0.0)

    def start(low: Lanes, top: Lanes, *, inside: bool) -> None:
        improve(Grid(unit * (top - low), low, inside), effort.passes)

    for inside, some in groupby(starts, lambda ends: ends[0] > -HALF and ends[1] < high + HALF):
        for_each(b, list(some), partial(start, inside=inside))
    with count(b, effort.polish):
        improve(grid_of(scale.get(), -floor.get()))
    return Affine(scale.get(), floor.get()), Sums(*(item.get() for item in kept))
