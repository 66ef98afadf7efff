"""Quantizing to the codebook types: y = d · unit · odd · (point of a grid, with signs or a small shift).

For a given scale the best points are found exactly (`grid_scan`). With its points fixed, the error of a group is a
parabola in its scale, s² qq - 2 s xq and a constant. So: points are found for a number of scales; for the half
precision d and the odd factors, the lower envelope of the groups' parabolas says at no cost how good they are at least;
what is chosen so, and its neighbours, are searched exactly, and give further parabolas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llvmlite import ir

from edgert_quant.blocks.grid_scan import LARGEST_COST, Points, Tables
from edgert_quant.blocks.lanes import F32, I32, I64, LaneArray, Lanes, Value, Variable, count, splat, splat_value
from edgert_quant.blocks.search import INFINITY, Tile, choose
from edgert_quant.blocks.superblocks import SUPER_BLOCK, counted, unit
from edgert_quant.blocks.types import BlockType

UNIT = 8
"""Weights that share a point, or two points, and a byte of signs."""

SHIFT = 0.125
"""What IQ1 types add to all coordinates of a point, or subtract."""

SECOND = 1 << 16
"""Added to a point's code: the shift is negative."""

STEPS = 20
"""Values of d that are tried, from that with which the greatest scale is somewhat above the greatest odd factor to
that with which it is about half of it."""

NEIGHBOURS = 3
"""Odd factors that are searched exactly: what was chosen, the one below and the one above it."""

REFITS = 2
"""Times that d is then solved by least squares."""


Span = tuple[float, float]


@dataclass(frozen=True)
class Codebook:
    """A codebook type. `length`: weights to a scale. `factor`: y = d · factor · odd · q, odd in 1, 3, …, `top`.

    `signs`: any eight; seven of eight, the last one making the number of minus signs even; or none, but a shift of all
    coordinates, the same for all of the group's points if `one_shift`.
    """

    kind: BlockType
    length: int
    factor: float
    top: int
    signs: Literal["all", "even", "shift"]
    one_shift: bool = False

    @property
    def units(self) -> int:
        """Of eight weights, to a scale."""
        return self.length // UNIT


@dataclass
class Fit:
    """Weighted sums over a group for the points that were found: of x q and q²."""

    xq: Lanes
    qq: Lanes

    def error(self, scale: Lanes) -> Lanes:
        """Less the weighted sum of x²."""
        return scale * (scale * self.qq - self.xq * 2)


class Finder:
    """Finds points for sixteen groups. The tile's weights become magnitudes where signs are kept apart."""

    def __init__(self, tile: Tile, book: Codebook) -> None:
        b = self.b = tile.b
        self.tile, self.book = tile, book
        self.points = Points(book.kind)
        self.per_unit = UNIT // self.points.size
        self.tables = Tables(b, self.points, flips=book.signs == "even")
        self.codes = LaneArray(b, book.units * self.per_unit, I32)
        """Of the points found last, point after point."""
        self._second = LaneArray(b, self.codes.length, I32)
        self.signs = LaneArray(b, book.units, I32)
        """A bit for each weight, 1 for minus."""
        self._given = LaneArray(b, book.units, I32)
        self._odd = LaneArray(b, book.units)
        if book.signs != "shift":
            self._take_signs()

    def _take_signs(self) -> None:
        """Weights become magnitudes; `_odd` is 1 for an odd number of minus signs that must be even, else 0."""
        b, x = self.b, self.tile.x
        with count(b, self.book.units) as u:
            zero = x[0].bits() & 0
            signs, odd = zero, zero
            for i, j in enumerate(self._weights(u)):
                minus = x[j].bits() >> 31
                signs, odd = signs | minus << i, odd ^ minus
                x[j] = x[j].magnitude()
            self._given[u] = signs
            self._odd[u] = odd.number()

    def _weights(self, u: Value) -> list[Value]:
        """Where the tile has the weights of a unit."""
        first = self.b.mul(u, ir.Constant(I64, UNIT))
        return [self.b.add(first, ir.Constant(I64, j)) for j in range(UNIT)]

    def find(self, scale: Lanes) -> Fit:
        """The best points at a scale for every group."""
        b, book = self.b, self.book
        shifts = (SHIFT, -SHIFT) if book.signs == "shift" else (0.0,)
        totals = [(Variable(b, splat(b, 0)), Variable(b, splat(b, 0))) for _ in shifts]
        with count(b, book.units) as u:
            found = [self._find_unit(u, scale, shift) for shift in shifts]
            if len(found) == 2 and not book.one_shift:
                (codes, fit), (others, other) = found
                better = other.error(scale) < fit.error(scale)
                codes = [better.where(second | SECOND, first) for first, second in zip(codes, others, strict=True)]
                found = [(codes, Fit(better.where(other.xq, fit.xq), better.where(other.qq, fit.qq)))]
            for (codes, fit), total, into in zip(found, totals, (self.codes, self._second), strict=False):
                total[0].add(fit.xq)
                total[1].add(fit.qq)
                for p, code in enumerate(codes):
                    into[b.add(b.mul(u, ir.Constant(I64, self.per_unit)), ir.Constant(I64, p))] = code
        fit = Fit(totals[0][0].get(), totals[0][1].get())
        if not book.one_shift:
            return fit
        other = Fit(totals[1][0].get(), totals[1][1].get())
        better = other.error(scale) < fit.error(scale)
        with count(b, self.codes.length) as p:
            self.codes[p] = better.where(self._second[p] | SECOND, self.codes[p])
        return Fit(better.where(other.xq, fit.xq), better.where(other.qq, fit.qq))

    def _find_unit(self, u: Value, scale: Lanes, shift: float) -> tuple[list[Lanes], Fit]:
        """The codes of a unit's points."""
        tile, even = self.tile, self.book.signs == "even"
        weights = self._weights(u)
        x = [tile.x[j] for j in weights]
        wx = [tile.weigh(item, j) for item, j in zip(x, weights, strict=True)]
        size = self.points.size
        places = [scale * (level + shift) for level in self.points.levels]
        least = scale * min(abs(level + shift) for level in self.points.levels)
        energy = sum(
            (item * wi + tile.weigh(least * least, j) for item, wi, j in zip(x, wx, weights, strict=True)),
            splat(self.b, 1e-37),
        )
        grain = LARGEST_COST / (energy * 2)

        def whole(error: Lanes) -> Lanes:
            return error.minimum(LARGEST_COST).integer()

        def costs(i: int) -> list[Lanes]:
            differences = [x[i] - place for place in places]
            heavy = tile.weigh(grain, weights[i])
            return [whole(item * item * heavy) for item in differences]

        def flips(i: int) -> list[Lanes]:
            heavy = wx[i] * grain * self._odd[u] * 4
            return [whole(place * heavy) for place in places]

        codes: list[tuple[Lanes, Lanes]] = []
        flipped: list[tuple[Lanes, Lanes]] = []
        for p in range(self.per_unit):
            own = range(size * p, size * (p + 1))
            self.tables.fill([costs(i) for i in own], [flips(i) for i in own] if even else None)
            if not even or self.per_unit == 2:
                codes.append(self.tables.scan(self.b))
            if even:
                flipped.append(self.tables.scan(self.b, flipped=True))
        return self._settle(u, _join(codes, flipped), wx, weights, shift)

    def _settle(
        self, u: Value, codes: list[Lanes], wx: list[Lanes], weights: list[Value], shift: float
    ) -> tuple[list[Lanes], Fit]:
        """Sums for the points found, and the sign that changes."""
        b = self.b
        xq = qq = splat(b, 0)
        least, bit = splat(b, INFINITY), splat(b, 0).bits()
        digits = [digit for code in codes for digit in self.points.digits(code)]
        for i, (digit, j) in enumerate(zip(digits, weights, strict=True)):
            q = self.points.value(digit) + shift
            product = wx[i] * q
            xq = xq + product
            qq = qq + self.tile.weigh(q * q, j)
            smaller = product < least
            least = smaller.where(product, least)
            bit = smaller.where(bit & 0 | 1 << i, bit)
        if self.book.signs == "even":
            odd = self._odd[u]
            xq = xq - least * odd * 2
            self.signs[u] = self._given[u] ^ (odd > 0).where(bit, 0)
        elif self.book.signs == "all":
            self.signs[u] = self._given[u]
        return codes, Fit(xq, qq)


def _join(plain: list[tuple[Lanes, Lanes]], flipped: list[tuple[Lanes, Lanes]]) -> list[Lanes]:
    """The codes of a unit. Of two points that share their signs, one has one sign changed."""
    if not flipped:
        return [code for _, code in plain]
    if len(flipped) == 1:
        return [flipped[0][1]]
    (error0, code0), (error1, code1) = plain
    (changed0, other0), (changed1, other1) = flipped
    first = changed0 + error1 < error0 + changed1
    return [first.where(other0, code0), first.where(code1, other1)]


class OddScales:
    """d and the groups' odd factors: the best for all fits so far."""

    def __init__(self, tile: Tile, book: Codebook, room: int) -> None:
        """For at most `room` fits."""
        b = self.b = tile.b
        self.book, self.lanes = book, SUPER_BLOCK // tile.length
        self._fits = LaneArray(b, room), LaneArray(b, room)
        self._best = Variable(b, splat(b, INFINITY))
        self._d, self._odd, self._xq, self._qq = (Variable(b, splat(b, value)) for value in (0, 1, 0, 0))

    def add(self, index: Value, fit: Fit) -> None:
        """A fit of every group."""
        self._fits[0][index], self._fits[1][index] = fit.xq, fit.qq

    @property
    def d(self) -> Lanes:
        """In half precision."""
        return self._d.get()

    @property
    def odd(self) -> Lanes:
        """A whole number."""
        return self._odd.get()

    def near(self, index: Value) -> Lanes:
        """The scale chosen for index 1; with the odd factor below it for 0, above it for 2."""
        odd = (self.odd + counted(self.b, index, -1) * 2).clamp(1, self.book.top)
        return self.d * self.book.factor * odd

    def settle(self, known: Value) -> None:
        """Choose again, from the first `known` fits."""
        b, book = self.b, self.book
        peak = self._peak(known).across(self.lanes, "max") / book.factor
        with count(b, STEPS + REFITS) as i:
            square = (self.odd * self.odd * self._qq.get()).across(self.lanes, "+") * book.factor
            product = (self.odd * self._xq.get()).across(self.lanes, "+")
            solved = (square > 0).where((product / square).half(), self.d)
            reach = book.top * (1.1 - counted(b, i, 0) * (0.6 / STEPS))
            refit = b.icmp_signed(">=", i, ir.Constant(I64, STEPS))
            d = Lanes(b, b.select(refit, solved.value, unit(peak, reach).value))
            self._try(d, known)

    def _peak(self, known: Value) -> Lanes:
        """The scale of each group's best fit."""
        b = self.b
        best, peak = Variable(b, splat(b, INFINITY)), Variable(b, splat(b, 0))
        with count(b, known) as k:
            scale = self._fits[0][k].maximum(0) / self._fits[1][k]
            choose(b, best, -scale * self._fits[0][k], (peak, scale))
        return peak.get()

    def _try(self, d: Lanes, known: Value) -> None:
        b, book = self.b, self.book
        error = Variable(b, splat(b, INFINITY))
        odd, xq, qq = (Variable(b, splat(b, value)) for value in (1, 0, 0))
        step = d * book.factor
        inverse = step.inverse()
        with count(b, known) as k:
            fit = Fit(self._fits[0][k], self._fits[1][k])
            half = (fit.xq / fit.qq * inverse - 1) * 0.5
            near = half.clamp(0, (book.top - 1) // 2).rounded() * 2 + 1
            choose(b, error, fit.error(step * near), (odd, near), (xq, fit.xq), (qq, fit.qq))
        chosen = (self._d, d), (self._odd, odd.get()), (self._xq, xq.get()), (self._qq, qq.get())
        choose(b, self._best, error.get().across(self.lanes, "+"), *chosen)


def search(tile: Tile, book: Codebook, span: Span, tries: int) -> tuple[Finder, OddScales]:
    """The points and scales of a tile.

    On the starting scales a group's weight of greatest magnitude would have r times the greatest level, for `tries`
    factors r between `span[0]` and `span[1]`, but for the first one: there it has the smallest level, as weights that
    are all alike need it in a grid with few such points (with a shift, where there are all: the greatest).
    """
    b = tile.b
    peak = Variable(b, splat(b, 0))
    with count(b, tile.length) as j:
        peak.set(peak.get().maximum(tile.x[j].magnitude()))
    finder = Finder(tile, book)
    scales = OddScales(tile, book, tries + NEIGHBOURS + 1)
    smallest, *_, greatest = finder.points.levels
    alike = 1.0 if book.signs == "shift" else greatest / smallest

    def by_phase(phase: Value, *numbers: int) -> Value:
        """A number for each of the three phases."""
        values = [ir.Constant(I64, number) for number in numbers]
        later = b.select(b.icmp_signed("==", phase, ir.Constant(I64, 1)), values[1], values[2])
        return b.select(b.icmp_signed("==", phase, ir.Constant(I64, 0)), values[0], later)

    with count(b, 3) as phase:  # the starting scales; what is chosen, and its neighbours; the final choice
        known = by_phase(phase, 0, tries, tries + NEIGHBOURS)
        scales.settle(known)
        first = b.icmp_signed("==", phase, ir.Constant(I64, 0))
        with count(b, by_phase(phase, tries, NEIGHBOURS, 1)) as i:
            start = peak.get() * spread(b, i, span, tries, alike) / greatest
            near = scales.near(b.add(i, by_phase(phase, 0, 0, NEIGHBOURS // 2)))
            scales.add(b.add(known, i), finder.find(Lanes(b, b.select(first, start.value, near.value))))
    return finder, scales


def spread(b: ir.IRBuilder, index: Value, span: Span, tries: int, first: float = 1.0) -> Lanes:
    """`first` at index 0; then `tries` - 1 numbers from `span[0]` to `span[1]`, evenly spaced."""
    start, stop = span
    step = (stop - start) / max(tries - 2, 1)
    place = b.fadd(b.fmul(b.sitofp(index, F32), ir.Constant(F32, step)), ir.Constant(F32, start - step))
    start_here = b.icmp_signed("==", index, ir.Constant(I64, 0))
    return splat_value(b, b.select(start_here, ir.Constant(F32, first), place))
