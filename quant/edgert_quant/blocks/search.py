"""The search for scales: sixteen groups of weights at a time, one to a lane (see `lanes`).

All searches minimize the same thing, the weighted squared error of a group: the sum over j of w[j] (x[j] - y[j])²,
where y is what the codes will be read back as and w is the importance of each weight. It is a least-squares problem in
the scale (and the offset) once the codes are fixed, and rounding once the scale is fixed. So: from several starting
grids, round, solve, round, solve, and keep the best. The starting grids differ in how much of the group's range they
cover: covering less makes steps finer and clips the extremes, which often pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    joined,
    load,
    splat,
    splat_value,
    transposed,
    vector,
)

TINY = 1e-12
"""Groups no larger than this are zero: the finest step of half precision is 6e-8."""

INFINITY = 3e38
"""More than any error."""

POLISH = 2
"""Times that the best fit is rounded and solved once more."""

PASSES = 2
"""Times that a starting grid is rounded and solved before its error is measured."""

PLACES = (0.1, 0.5, 0.9)
"""Where the covered part of the range lies: 0 at its lower end, 1 at its upper end."""

MARGIN = 1e-9
"""Share of a group's sum of squares by which a grid must be better than the grids tried before it. Less is rounding
noise; on a constant group, where every grid fits, all groups of a super-block must stay with the same one."""


Span = tuple[float, float]


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


@dataclass
class Grid:
    """Codes of x are those nearest to x · inverse + shift."""

    inverse: Lanes
    shift: Lanes | None = None


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
    return codes.nearest(place)


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


def fit_scale(tile: Tile, codes: Codes, span: Span, tries: int, *, half: bool) -> Lanes:
    """The best scale of y = scale · q, of either sign; with `half`, the best in half precision.

    On the starting grids the weight of greatest magnitude would have r times the lowest or the highest code, for
    `tries` factors r: 1, and others between `span[0]` and `span[1]`.
    """
    b = tile.b
    least, greatest = extent(tile)
    peak = (greatest > -least).where(greatest, least)
    best, scale = Variable(b, splat(b, INFINITY)), Variable(b, splat(b, 0))
    margin = center(tile, None)[1] * MARGIN

    def improve(grids: list[Grid], passes: int) -> None:
        for _ in range(passes):
            scales = [item.xq / item.qq.maximum(TINY**2) for item in sums(tile, grids, codes)]
            if half:
                scales = [item.half() for item in scales]
            grids = [grid_of(item, None) for item in scales]
        for error, item in zip(errors(tile, [(item, None) for item in scales], codes), scales, strict=True):
            choose(b, best, error, (scale, item), margin=margin)

    peak_inverse = (peak.magnitude() > TINY).where(1 / peak, 0.0)
    with count(b, tries) as attempt:
        reach = spread(b, attempt, span, tries)
        improve([Grid(peak_inverse * reach * codes.low), Grid(peak_inverse * reach * codes.high)], PASSES)
    with count(b, POLISH):
        improve([grid_of(scale.get(), None)], 1)
    return scale.get()


def spread(b: ir.IRBuilder, index: Value, span: Span, tries: int, first: float = 1.0) -> Lanes:
    """`first` at index 0; then `tries` - 1 numbers from `span[0]` to `span[1]`, evenly spaced."""
    start, stop = span
    step = (stop - start) / max(tries - 2, 1)
    place = b.fadd(b.fmul(b.sitofp(index, F32), ir.Constant(F32, step)), ir.Constant(F32, start - step))
    start_here = b.icmp_signed("==", index, ir.Constant(I64, 0))
    return splat_value(b, b.select(start_here, ir.Constant(F32, first), place))


@dataclass
class Affine:
    """y = scale · q + floor, fitted to weights from which `base` was subtracted first."""

    scale: Lanes
    floor: Lanes


def center(tile: Tile, base: Lanes | None) -> tuple[Lanes, Lanes]:
    """Subtract `base` from every weight; returns the weighted sums of what they are now, and of its squares."""
    b = tile.b
    sum_x, sum_xx = Variable(b, splat(b, 0)), Variable(b, splat(b, 0))
    with count(b, tile.length) as j:
        x = tile.x[j]
        if base is not None:
            x = x - base
            tile.x[j] = x
        wx = tile.weigh(x, j)
        sum_x.add(wx)
        sum_xx.add(wx * x)
    return sum_x.get(), sum_xx.get()


def solve(found: Sums, sum_w: Lanes, sum_x: Lanes, ceiling: Lanes | None) -> Affine:
    """Least squares for scale and floor with the codes fixed, the scale at least 0, the floor at most `ceiling`.

    Where all weights have the same code, the floor is 0.
    """
    determinant = sum_w * found.qq - found.q * found.q
    several = determinant > sum_w * found.qq * 1e-6
    slope = (sum_w * found.xq - sum_x * found.q) / determinant
    scale = several.where(slope, found.xq / found.qq.maximum(TINY**2)).maximum(0)
    floor = several.where((sum_x - scale * found.q) / sum_w, 0.0)
    if ceiling is not None:
        above = floor > ceiling
        alone = (found.xq - ceiling * found.q) / found.qq.maximum(TINY**2)
        scale = above.where(alone.maximum(0), scale)
        floor = above.where(ceiling, floor)
    return Affine(scale, floor)


def fit_affine(
    tile: Tile,
    extremes: tuple[Lanes, Lanes],
    sum_w: Lanes,
    high: int,
    span: Span,
    tries: int,
    *,
    bounded: bool,
) -> Affine:
    """The best y = scale · q + floor with q in 0..high, for a tile centered on `extremes[0]`, which must not exceed the
    smallest weight. `bounded`: the floor of the original weights must not be positive.

    The starting grids cover part of the range, or slightly more than it; each part is tried lower and higher.
    """
    b = tile.b
    least, greatest = extremes
    ceiling = -least if bounded else None
    width = (greatest - least > TINY).where(greatest - least, 0.0)
    zero = splat(b, 0)
    sum_x, sum_xx = center(tile, None)
    best, scale, floor = Variable(b, splat(b, INFINITY)), Variable(b, zero), Variable(b, zero)

    def improve(lines: list[Affine], passes: int) -> None:
        for _ in range(passes):
            found = sums(tile, [grid_of(line.scale, -line.floor) for line in lines], Range(0, high))
            lines = [solve(item, sum_w, sum_x, ceiling) for item in found]
        results = errors(tile, [(line.scale, -line.floor) for line in lines], Range(0, high))
        for error, line in zip(results, lines, strict=True):
            choose(b, best, error, (scale, line.scale), (floor, line.floor), margin=sum_xx * MARGIN)

    with count(b, tries) as attempt:
        reach = spread(b, attempt, span, tries)
        step = width * reach / high
        slack = width - width * reach
        improve([Affine(step, slack * place) for place in PLACES], PASSES)
    with count(b, POLISH):
        improve([Affine(scale.get(), floor.get())], 1)
    return Affine(scale.get(), floor.get())
