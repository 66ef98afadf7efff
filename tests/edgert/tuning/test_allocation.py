"""Choices under a budget, against trying all of them."""

import itertools
import re

import numpy as np
import pytest
from edgert_models.errors import RequestError
from edgert_quant.blocks import BlockType

from edgert.tuning.allocation import allocate, curve

KINDS = (BlockType.Q2_K, BlockType.Q4_K, BlockType.Q6_K, BlockType.Q8_0)


def problem(seed: int, count: int = 6) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    sizes, costs = {}, {}
    for i in range(count):
        weights = 256 * int(rng.integers(1, 200))
        sizes[f"t{i}"] = {kind: weights // kind.block_size * kind.block_bytes for kind in KINDS}
        falling = np.sort(rng.random(len(KINDS)))[::-1] * rng.random()
        costs[f"t{i}"] = dict(zip(KINDS, map(float, falling), strict=True))
    return costs, sizes


@pytest.mark.parametrize("seed", range(12))
def test_the_best_of_all_choices(seed: int) -> None:
    costs, sizes = problem(seed)
    least = sum(min(own.values()) for own in sizes.values())
    most = sum(max(own.values()) for own in sizes.values())
    budget = int(least + (most - least) * np.random.default_rng(seed).random())
    found = allocate(costs, sizes, budget)
    assert found.bytes == sum(sizes[name][kind] for name, kind in found.types.items()) <= budget
    best = min(
        sum(costs[f"t{i}"][kind] for i, kind in enumerate(choice))
        for choice in itertools.product(KINDS, repeat=len(costs))
        if sum(sizes[f"t{i}"][kind] for i, kind in enumerate(choice)) <= budget
    )
    assert found.divergence == pytest.approx(best, rel=1e-9)


def test_more_bytes_never_do_worse() -> None:
    costs, sizes = problem(99, count=30)
    points = curve(costs, sizes)
    assert [size for size, _ in points] == sorted(size for size, _ in points)
    assert all(b <= a + 1e-12 for (_, a), (_, b) in itertools.pairwise(points))


def test_a_budget_that_no_choice_reaches() -> None:
    costs, sizes = problem(1)
    with pytest.raises(RequestError, match=re.escape("the budget leaves 100 bytes for matrices, and they take ")):
        allocate(costs, sizes, 100)
