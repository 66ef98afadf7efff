"""Integer scales of super-blocks: groups' scales (and minima) are multiples of one half-precision number each.

Lanes hold the groups of one or two super-blocks, so what belongs to a super-block is summed across neighbouring lanes.
"""

from __future__ import annotations

from llvmlite import ir

from edgert_quant.blocks.codes import Codes
from edgert_quant.blocks.lanes import F32, Lanes, Value, Variable, count, splat, splat_value
from edgert_quant.blocks.search import INFINITY, Affine, Tile, Totals, choose, errors, grid_of, sums

SMALLEST_HALF = 2.0**-24
SUPER_BLOCK = 256
"""Weights."""


STARTS = 8
"""First steps that are tried: those with which the greatest scale is the greatest integer, one less, two less, …"""


def unit(peak: Lanes, highest: Lanes) -> Lanes:
    """The half-precision step with which `peak` is about `highest` steps; 0 for a peak of 0."""
    exact = peak / highest
    least = (exact < 0).where(splat(peak.b, -SMALLEST_HALF), SMALLEST_HALF)
    step = exact.half()
    return peak.equals(0).where(splat(peak.b, 0), step.equals(0).where(least, step))


def multiple(value: Lanes, step: Lanes, low: int, high: int) -> Lanes:
    """How many steps come nearest to `value`, limited to low..high."""
    return (value * step.inverse()).clamp(low, high).rounded()


def counted(b: ir.IRBuilder, index: Value, first: float) -> Lanes:
    """The numbers first, first + 1, … as a loop's index goes 0, 1, …"""
    return splat_value(b, b.fadd(b.sitofp(index, F32), ir.Constant(F32, first)))


class AffineScales:
    """y = d · scale · q - dmin · minimum, scale and minimum in 0..top (63 for Q4_K and Q5_K, 15 for Q2_K)."""

    def __init__(
        self,
        tile: Tile,
        fit: Affine,
        base: Lanes,
        totals: Totals,
        codes: Codes,
        rounds: int,
        top: int,
    ) -> None:
        """Settle d, dmin, scales and minima for a tile centered on `base`, starting from the groups' own best fit."""
        b, lanes = tile.b, SUPER_BLOCK // tile.length
        minimum = (-(fit.floor + base)).maximum(0)
        d, dmin, scale, floor = (Variable(b, splat(b, 0)) for _ in range(4))
        nearest = Variable(b, splat(b, INFINITY))
        with count(b, STARTS) as i:
            step = unit(minimum.across(lanes, "max"), counted(b, i, top + 1 - STARTS))
            integer = multiple(minimum, step, 0, top)
            (result,) = errors(tile, [(fit.scale, step * integer + base)], codes)
            choose(b, nearest, result.across(lanes, "+"), (dmin, step), (floor, integer))
        settled = dmin.get() * floor.get() + base
        exact = fit.scale
        for _ in range(2):  # the scales that suit the minima as they are now
            (found,) = sums(tile, [grid_of(exact, settled)], codes)
            exact = (found.qq > 0).where((found.xq + settled * found.q) / found.qq, 0.0).maximum(0)
        best = Variable(b, splat(b, INFINITY))
        with count(b, STARTS) as i:
            step = unit(exact.across(lanes, "max"), counted(b, i, top + 1 - STARTS))
            integer = multiple(exact, step, 0, top)
            (result,) = errors(tile, [(step * integer, settled)], codes)
            choose(b, best, result.across(lanes, "+"), (d, step), (scale, integer))
        kept = [Variable(b, item.get()) for item in (d, dmin, scale, floor)]
        with count(b, rounds):
            error = Variable(b, splat(b, INFINITY))
            near_scale, near_floor = Variable(b, scale.get()), Variable(b, floor.get())
            with count(b, 3) as i:
                tried = (scale.get() + counted(b, i, -1)).clamp(0, top)
                floors = [(floor.get() + shift).clamp(0, top) for shift in (-1, 0, 1)]
                steps = [(d.get() * tried, dmin.get() * item + base) for item in floors]
                for result, item in zip(errors(tile, steps, codes), floors, strict=True):
                    choose(b, error, result, (near_scale, tried), (near_floor, item))
            scale.set(near_scale.get())
            floor.set(near_floor.get())
            now = [d.get(), dmin.get(), scale.get(), floor.get()]
            choose(b, best, error.get().across(lanes, "+"), *zip(kept, now, strict=True))
            self._refit(tile, now, base, totals, codes, d, dmin)
        self.d, self.dmin, self.scale, self.floor = (item.get() for item in kept)

    @staticmethod
    def _refit(
        tile: Tile,
        now: list[Lanes],
        base: Lanes,
        totals: Totals,
        codes: Codes,
        d: Variable,
        dmin: Variable,
    ) -> None:
        """Least squares for d and dmin over a super-block, with the codes and the integer scales fixed."""
        lanes = SUPER_BLOCK // tile.length
        old_d, old_dmin, scale, floor = now
        (found,) = sums(tile, [grid_of(old_d * scale, old_dmin * floor + base)], codes)
        xq = found.xq + base * found.q
        x = totals.x + base * totals.w
        aa = (scale * scale * found.qq).across(lanes, "+")
        ab = (scale * floor * found.q).across(lanes, "+")
        bb = (floor * floor * totals.w).across(lanes, "+")
        xa = (scale * xq).across(lanes, "+")
        xb = (floor * x).across(lanes, "+")
        determinant = aa * bb - ab * ab
        sound = determinant > aa * bb * 1e-5
        new_dmin = sound.where((xa * ab - xb * aa) / determinant, old_dmin).maximum(0).half()
        new_d = ((xa + new_dmin * ab) / aa).half()
        d.set((new_d > 0).where(new_d, old_d))
        dmin.set(new_dmin)


class SymmetricScales:
    """y = d · scale · q, scale in -top..top - 1 (128 for Q6_K, 32 for Q3_K and IQ4_XS)."""

    def __init__(self, tile: Tile, fit: Lanes, codes: Codes, rounds: int, top: int) -> None:
        """Settle d and the scales, starting from the groups' own best scales."""
        b, lanes = tile.b, SUPER_BLOCK // tile.length
        greatest, least = fit.across(lanes, "max"), -((-fit).across(lanes, "max"))
        peak = (greatest > -least).where(greatest, least)
        d, scale = Variable(b, splat(b, 0)), Variable(b, splat(b, 0))
        best = Variable(b, splat(b, INFINITY))
        with count(b, STARTS) as i:
            step = unit(peak, counted(b, i, -top))
            integer = multiple(fit, step, -top, top - 1)
            (result,) = errors(tile, [(step * integer, None)], codes)
            choose(b, best, result.across(lanes, "+"), (d, step), (scale, integer))
        kept = [Variable(b, item.get()) for item in (d, scale)]
        with count(b, rounds):
            error, near = Variable(b, splat(b, INFINITY)), Variable(b, scale.get())
            tried = [(scale.get() + shift).clamp(-top, top - 1) for shift in (-1, 0, 1)]
            results = errors(tile, [(d.get() * item, None) for item in tried], codes)
            for result, item in zip(results, tried, strict=True):
                choose(b, error, result, (near, item))
            scale.set(near.get())
            now = [d.get(), scale.get()]
            choose(b, best, error.get().across(lanes, "+"), *zip(kept, now, strict=True))
            (found,) = sums(tile, [grid_of(d.get() * scale.get(), None)], codes)
            aa = (scale.get() * scale.get() * found.qq).across(lanes, "+")
            xa = (scale.get() * found.xq).across(lanes, "+")
            d.set((aa > 0).where((xa / aa).half(), d.get()))
        self.d, self.scale = (item.get() for item in kept)
