"""How tiles of sixteen groups become blocks, type by type: the table `RECIPES` of what `kernels` compiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from edgert_quant.blocks import grid_pack, pack, ternary
from edgert_quant.blocks.codes import Codes, Range, Table
from edgert_quant.blocks.grid_recipes import IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, codebook
from edgert_quant.blocks.lanes import Lanes, Value, Variable, count, splat
from edgert_quant.blocks.mxfp4 import mxfp4
from edgert_quant.blocks.search import (
    INFINITY,
    NORMAL,
    QUICK,
    THOROUGH,
    TINY,
    Effort,
    Ends,
    Place,
    Sums,
    Tile,
    center,
    choose,
    covering,
    errors,
    evenly,
    extent,
    fit_affine,
    fit_scale,
    grid_of,
    peaks,
    sums,
)
from edgert_quant.blocks.superblocks import AffineScales, SymmetricScales
from edgert_quant.blocks.types import BlockType
from edgert_quant.blocks.unpack32 import IQ4_VALUES

Recipe = Callable[[Tile, list[Value]], list[Lanes]]
"""Quantizes a tile into the blocks at the given addresses; returns the half-precision numbers it stored."""

IQ4 = Table(tuple(int(value) for value in IQ4_VALUES))


def signed(bits: int) -> Range:
    """Codes of Q4_0, Q5_0, Q3_K and Q6_K, less their offset; those of Q8_0 are never -128, which some programs cannot
    negate.
    """
    high = (1 << bits - 1) - 1
    return Range(-high if bits == 8 else -high - 1, high)


def symmetric(codes: Codes, starts: Sequence[Place], effort: Effort, *, neighbours: bool = True) -> Recipe:
    """Q4_0, Q5_0, Q8_0 and IQ4_NL: y = d q, or d table[q]. With `neighbours`, the best scale's neighbours in half
    precision are tried too, and those with which the greatest weight has an extreme code: it pays where half precision
    is coarse beside the codes.
    """

    def recipe(tile: Tile, targets: list[Value]) -> list[Lanes]:
        b = tile.b
        peak = peaks(tile)
        scale = fit_scale(tile, codes, peak, starts, effort).half()
        d = Variable(b, scale)
        if neighbours:
            near = (scale.magnitude() * 2.0**-10).maximum(2.0**-24)
            plainest = [(peak / code).half() for code in sorted({codes.low, -codes.high})]
            tried = [scale, (scale - near).half(), (scale + near).half(), *plainest]
            best = Variable(b, splat(b, INFINITY))
            for error, item in zip(errors(tile, [(item, None) for item in tried], codes), tried, strict=True):
                choose(b, best, error, (d, item))
        grid = grid_of(d.get(), None)
        if codes == signed(8):
            pack.put_bytes(b, pack.CodeRows(tile, grid, codes), targets, d.get(), codes.low)
        else:
            pack.put_small(tile, grid, codes, targets, [d.get()], five=codes == signed(5))
        return [d.get()]

    return recipe


def affine(bits: int, starts: Sequence[Ends], effort: Effort, rounds: int) -> Recipe:
    """Q4_1, Q5_1: y = d q + m. So many `rounds` settle minimum and scale in half precision, each after the other."""
    high = (1 << bits) - 1
    codes = Range(0, high)

    def recipe(tile: Tile, targets: list[Value]) -> list[Lanes]:
        b = tile.b
        base, greatest = extremes = extent(tile)
        totals = center(tile, base)
        fit, found = fit_affine(tile, extremes, totals, high, starts, effort, bounded=False)
        d, m = settled(found, fit.floor + base, base)
        # Where half precision tells minimum and maximum hardly apart: a minimum rounded down, and codes that make up
        # for it.
        flat = greatest - base < base.magnitude() * 2.0**-9
        below = (base - base.magnitude() * 2.0**-11).half()
        d, m = flat.where(((greatest - below) / high).half(), d), flat.where(below, m)
        best, new_d, new_m = Variable(b, splat(b, INFINITY)), Variable(b, d), Variable(b, m)
        tried_d, tried_m = Variable(b, d), Variable(b, m)
        with count(b, rounds):
            scale, floor = tried_d.get(), tried_m.get() - base
            (found,) = sums(tile, [grid_of(scale, -floor)], codes)
            choose(b, best, -found.explained(scale, floor, totals), (new_d, scale), (new_m, tried_m.get()))
            d, m = settled(found, (totals.x - scale * found.q) / totals.w + base, base)
            tried_d.set(d)
            tried_m.set(m)
        d, m = new_d.get(), new_m.get()
        pack.put_small(tile, grid_of(d, base - m), codes, targets, [d, m], five=bits == 5)
        return [d, m]

    def settled(found: Sums, minimum: Lanes, base: Lanes) -> tuple[Lanes, Lanes]:
        """The scale that suits a minimum in half precision, for the codes of these sums."""
        m = minimum.half()
        exact = (found.xq - (m - base) * found.q) / found.qq.maximum(TINY**2)
        return exact.maximum(0).half(), m

    return recipe


def affine_k(bits: int, starts: Sequence[Ends], effort: Effort, rounds: int) -> Recipe:
    """Q2_K, Q4_K, Q5_K: y = d scale q - dmin minimum."""
    high, top = (1 << bits) - 1, 15 if bits == 2 else 63
    codes = Range(0, high)

    def recipe(tile: Tile, targets: list[Value]) -> list[Lanes]:
        b = tile.b
        least, greatest = extent(tile)
        base = least.minimum(0)
        totals = center(tile, base)
        fit, _ = fit_affine(tile, (base, greatest), totals, high, starts, effort, bounded=True)
        found = AffineScales(tile, fit, base, totals, codes, rounds, top)
        grid = grid_of(found.d * found.scale, found.dmin * found.floor + base)
        rows = pack.CodeRows(tile, grid, codes)
        units, scales = (found.d, found.dmin), (found.scale, found.floor)
        if bits == 2:
            pack.put_q2(b, rows, targets[0], units, scales)
        else:
            pack.put_affine(b, rows, targets, units, scales, five=bits == 5)
        return [found.d, found.dmin]

    return recipe


def symmetric_k(
    codes: Codes, top: int, put: pack.PutSuper, starts: Sequence[Place], effort: Effort, rounds: int
) -> Recipe:
    """Q3_K, Q6_K and IQ4_XS: y = d scale q, or d scale table[q], with scales from -top to top - 1."""

    def recipe(tile: Tile, targets: list[Value]) -> list[Lanes]:
        fit = fit_scale(tile, codes, peaks(tile), starts, effort)
        found = SymmetricScales(tile, fit, codes, rounds, top)
        rows = pack.CodeRows(tile, grid_of(found.d * found.scale, None), codes)
        put(tile.b, rows, targets, found.d, found.scale)
        return [found.d]

    return recipe


def both(length: int, recipe: Recipe) -> tuple[int, Recipe, Recipe]:
    """The same recipe with and without importance."""
    return length, recipe, recipe


Q3_K = partial(symmetric_k, signed(3), 32, pack.put_q3)
Q6_K = partial(symmetric_k, signed(6), 128, pack.put_q6)
IQ4_XS = partial(symmetric_k, IQ4, 32, pack.put_iq4)

LEANS = (0.1, 0.5, 0.9)


def sides(codes: Codes, start: float, stop: float, number: int) -> list[Place]:
    """Places from `start` to `stop` times the lowest code, and as many for the highest."""
    return [code * part for code in (codes.low, codes.high) for part in evenly(start, stop, number)]


RECIPES: dict[BlockType, tuple[int, Recipe, Recipe]] = {
    BlockType.Q8_0: both(32, symmetric(signed(8), evenly(-127, -116, 12), QUICK)),
    BlockType.Q4_0: (
        32,
        symmetric(signed(4), (-8, 7, -8.8), QUICK, neighbours=False),
        symmetric(signed(4), sides(signed(4), 0.8, 1.5, 14), THOROUGH),
    ),
    BlockType.Q5_0: (
        32,
        symmetric(signed(5), (-16, 15, -16.4, 15.4, -16.8), QUICK, neighbours=False),
        symmetric(signed(5), sides(signed(5), 0.8, 1.4, 22), THOROUGH),
    ),
    BlockType.Q4_1: (
        32,
        affine(4, ((-0.0, 15), (-0.0, 15.45)), Effort(1, 0), 0),
        affine(4, covering(15, 0.8, 1.04, 5, LEANS), THOROUGH, 3),
    ),
    BlockType.Q5_1: (
        32,
        affine(5, ((-0.0, 31), (-0.0, 30.5), (-0.0, 30), (-0.0, 31.45)), QUICK, 0),
        affine(5, covering(31, 0.8, 1.04, 5, LEANS), THOROUGH, 3),
    ),
    BlockType.IQ4_NL: (
        32,
        symmetric(IQ4, sides(IQ4, 0.8, 1.2, 12), NORMAL),
        symmetric(IQ4, sides(IQ4, 0.8, 1.5, 18), THOROUGH),
    ),
    BlockType.IQ4_XS: (
        32,
        IQ4_XS(sides(IQ4, 0.8, 1.2, 12), NORMAL, 3),
        IQ4_XS(sides(IQ4, 0.8, 1.5, 18), THOROUGH, 3),
    ),
    BlockType.Q2_K: both(16, affine_k(2, covering(3, 0.6, 1.04, 9, LEANS), THOROUGH, 4)),
    BlockType.Q3_K: (
        16,
        Q3_K(sides(signed(3), 0.7, 1.1, 12), NORMAL, 3),
        Q3_K(sides(signed(3), 0.7, 1.5, 18), THOROUGH, 3),
    ),
    BlockType.Q4_K: both(32, affine_k(4, covering(15, 0.8, 1.04, 5, LEANS), THOROUGH, 3)),
    BlockType.Q5_K: both(32, affine_k(5, covering(31, 0.8, 1.04, 7, LEANS), THOROUGH, 4)),
    BlockType.Q6_K: (
        16,
        Q6_K(sides(signed(6), 0.75, 1.1, 16), NORMAL, 3),
        Q6_K(sides(signed(6), 0.75, 1.4, 16), THOROUGH, 3),
    ),
    BlockType.IQ3_S: both(32, codebook(IQ3_S, grid_pack.put_iq3_s, (0.6, 1.2), 8)),
    BlockType.IQ3_XXS: both(32, codebook(IQ3_XXS, grid_pack.put_iq3_xxs, (0.6, 1.2), 8)),
    BlockType.IQ2_S: both(16, codebook(IQ2_S, grid_pack.put_iq2_s, (0.4, 1.1), 6)),
    BlockType.IQ2_XS: both(16, codebook(IQ2_XS, grid_pack.put_iq2_xs, (0.4, 1.1), 6)),
    BlockType.IQ2_XXS: both(32, codebook(IQ2_XXS, grid_pack.put_iq2_xxs, (0.4, 1.1), 6)),
    BlockType.IQ1_S: both(32, codebook(IQ1_S, grid_pack.put_iq1_s, (0.3, 0.65), 3)),
    BlockType.IQ1_M: both(16, codebook(IQ1_M, grid_pack.put_iq1_m, (0.3, 0.65), 3)),
    BlockType.MXFP4: (32, partial(mxfp4, shifts=(0, 1, -1)), partial(mxfp4, shifts=(0, 1, -1, -2, -3))),
    BlockType.TQ1_0: both(ternary.GROUP, partial(ternary.ternary, packed=True)),
    BlockType.TQ2_0: both(ternary.GROUP, partial(ternary.ternary, packed=False)),
}
"""Weights per group, and how a tile of sixteen groups is quantized, without and with importance.

With importance, and for types with super-blocks, spans and tries are where errors stopped falling on Gaussian, Laplace
and Student-t weights. An extreme weight may be of no importance, so with importance grids that clip it more are worth
trying. Without importance the simple types are to cost no more than a formula does elsewhere, so they get few starting
grids, and those that clip nothing are the cheapest (a negative zero adds nothing).
"""
