"""The search for points of grids: exact for the scale that was chosen."""

from collections.abc import Callable
from itertools import chain

import numpy as np
import pytest
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.blocks.grid_scan import Points, share
from edgert_quant.blocks.grids import grid_levels, grid_points
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.ggml import importance, samples

Array = NDArray[np.float64]
GRIDS = [BlockType[name] for name in ("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")]


@given(st.lists(st.sets(st.integers(0, 15), min_size=1), max_size=12))
def test_shared_pairs_stand_for_the_same_sets(sets: list[set[int]]) -> None:
    pairs, rest = share(sets, 16)
    stands = {number: {number} for number in range(16)}
    for number, (left, right) in enumerate(pairs, 16):
        stands[number] = stands[left] | stands[right]
    assert [set(chain.from_iterable(stands[number] for number in items)) for items in rest] == sets
    assert len(pairs) + sum(map(len, rest)) <= sum(map(len, sets))


@pytest.mark.parametrize("kind", GRIDS, ids=lambda kind: kind.name)
def test_every_point_has_one_place_and_one_code(kind: BlockType) -> None:
    points = Points(kind)
    indices, halves = points.indices(), points.by_lower_half()
    for index, levels in enumerate(grid_points(kind).tolist()):
        assert indices[points.rank(levels)] == index
        lower, upper = levels[: points.half], levels[points.half :]
        assert points.rank(upper) in halves[tuple(lower)]
    assert sum(map(len, halves.values())) == len(grid_points(kind))


def nibbles(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([data & 15, data >> 4], axis=-1).reshape(len(data), -1)


def words(data: NDArray[np.uint8], first: int) -> NDArray[np.uint32]:
    return np.ascontiguousarray(data[:, first:]).view("<u4")


LEVELS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.generic]]] = {
    "IQ3_S": lambda data: nibbles(data[:, 106:]),
    "IQ3_XXS": lambda data: words(data, 66) >> 28,
    "IQ2_S": lambda data: nibbles(data[:, 74:]),
    "IQ2_XS": lambda data: nibbles(data[:, 66:]),
    "IQ2_XXS": lambda data: words(data, 2)[:, 1::2] >> 28,
    "IQ1_S": lambda data: np.ascontiguousarray(data[:, 34:]).view("<u2") >> 12 & 7,
}
FACTORS = {"IQ3_S": 1, "IQ3_XXS": 1 / 4, "IQ2_S": 1 / 8, "IQ2_XS": 1 / 8, "IQ2_XXS": 1 / 8, "IQ1_S": 1}


def scales(data: NDArray[np.uint8], kind: BlockType) -> Array:
    """What the points of blocks are multiplied by, for every eight weights."""
    d = np.ascontiguousarray(data[:, :2]).view("<f2").astype(np.float64)
    found = d * FACTORS[kind.name] * (2 * LEVELS[kind.name](data).astype(np.float64) + 1)
    return np.repeat(found, 32 // found.shape[1], axis=1).reshape(-1, 1)


def least_errors(x: Array, w: Array, scale: Array, kind: BlockType, shift: float = 0.0) -> Array:
    """Of every eight weights at these scales, whatever the points: tried one by one."""
    values = np.asarray(grid_levels(kind), np.float64)[grid_points(kind)] + shift
    odd = np.zeros(len(x), bool)
    if kind.name not in ("IQ1_S", "IQ1_M"):
        odd = (x < 0).sum(1) % 2 == 1
        x = np.abs(x)
    if kind.name in ("IQ3_S", "IQ2_S"):
        odd[:] = False
    y = scale[:, :, None] * values.T  # [eights, size, points]
    plain, changed = [], []
    for first in range(0, 8, values.shape[1]):
        part = slice(first, first + values.shape[1])
        own_x, own_w = x[:, part, None], w[:, part, None]
        errors = (own_w * (own_x - y) ** 2).sum(1)
        plain.append(errors.min(1))
        changed.append((errors + (4 * own_w * own_x * y).min(1)).min(1))
    total = np.sum(plain, axis=0)
    flipped = np.min([total - own + other for own, other in zip(plain, changed, strict=True)], axis=0)
    return np.where(odd, flipped, total)


@pytest.mark.parametrize("name", list(LEVELS))
@pytest.mark.parametrize("weighted", [False, True])
def test_points_are_the_best_for_their_scales(name: str, weighted: bool) -> None:
    kind = BlockType[name]
    w = importance(256) if weighted else np.ones(256, np.float32)
    for sample in ("gaussian", "columns"):
        x = samples(8, 256)[sample]
        data = quantize(x, kind, importance=w if weighted else None)
        eights, weights = x.astype(np.float64).reshape(-1, 8), np.tile(w, 8).astype(np.float64).reshape(-1, 8)
        ours = (weights * (eights - dequantize(data, kind).reshape(-1, 8)) ** 2).sum(1)
        scale = scales(data, kind)
        if name == "IQ1_S":  # four eights share a shift
            each = [least_errors(eights, weights, scale, kind, shift) for shift in (0.125, -0.125)]
            best = np.min([errors.reshape(-1, 4).sum(1) for errors in each], axis=0)
            ours = ours.reshape(-1, 4).sum(1)
        else:
            best = least_errors(eights, weights, scale, kind)
        np.testing.assert_allclose(ours, best, rtol=2e-4)
