"""Which tensor gets which type, so that the sum of divergences is least and the bytes stay within a budget.

That is a knapsack with one choice for each tensor, solved exactly by dynamic programming over bytes in steps of a
hundred-thousandth of the budget, and filled up by single upgrades where the rounding of steps left room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from edgert_models.errors import RequestError
from edgert_quant.blocks import BlockType
from edgert_quant.files import human_bytes
from numpy.typing import NDArray

STEPS = 100_000
Sizes = Mapping[str, Mapping[BlockType, int]]
Table = Mapping[str, Mapping[BlockType, float]]


@dataclass(frozen=True)
class Allocation:
    """Types by tensor, the bytes they take, and the divergence that is to be expected."""

    types: dict[str, BlockType]
    bytes: int
    divergence: float


def refuse_unreachable(sizes: Sizes, budget: int) -> None:
    """RequestError if the smallest types take more than `budget` bytes."""
    least = sum(min(own.values()) for own in sizes.values())
    if least > budget:
        raise RequestError(
            f"the budget leaves {human_bytes(max(budget, 0))} for matrices, and they take {human_bytes(least)} at "
            "least, all in their smallest types",
            parameter="budget",
        )


def allocate(costs: Table, sizes: Sizes, budget: int) -> Allocation:
    """The best choice of at most `budget` bytes; RequestError if the smallest types take more."""
    refuse_unreachable(sizes, budget)
    unit = max(1, -(-budget // STEPS))
    total = -(-budget // unit)
    best: NDArray[np.float64] = np.zeros(total + 1)
    choices: list[NDArray[np.int8]] = []
    for name, own in costs.items():
        after, choice = np.full(total + 1, np.inf), np.zeros(total + 1, np.int8)
        for index, (kind, cost) in enumerate(own.items()):
            size = sizes[name][kind] // unit  # rounded down; what is too much in the end is taken back below
            if size > total:
                continue
            tried = np.full(total + 1, np.inf)
            tried[size:] = best[: total + 1 - size] + cost
            better = tried < after
            after[better], choice[better] = tried[better], index
        best = after
        choices.append(choice)
    place, types = total, dict[str, BlockType]()
    for (name, own), choice in zip(reversed(list(costs.items())), reversed(choices), strict=True):
        types[name] = list(own)[choice[place]]
        place -= sizes[name][types[name]] // unit
    types = {name: types[name] for name in costs}
    _take_back(types, costs, sizes, budget)
    _fill_up(types, costs, sizes, budget)
    used = sum(sizes[name][kind] for name, kind in types.items())
    return Allocation(types, used, sum(costs[name][kind] for name, kind in types.items()))


def curve(costs: Table, sizes: Sizes, points: int = 40) -> list[tuple[int, float]]:
    """Bytes and divergence of the best choices, from the smallest types to the largest."""
    least = sum(min(own.values()) for own in sizes.values())
    most = sum(max(own.values()) for own in sizes.values())
    found = [allocate(costs, sizes, int(budget)) for budget in np.linspace(least, most, points)]
    return [(each.bytes, each.divergence) for each in found]


def _take_back(types: dict[str, BlockType], costs: Table, sizes: Sizes, budget: int) -> None:
    """Downgrade, at the least loss for each byte, until the budget holds."""
    while (excess := sum(sizes[name][kind] for name, kind in types.items()) - budget) > 0:
        moves = []
        for name, now in types.items():
            for kind, cost in costs[name].items():
                saved = sizes[name][now] - sizes[name][kind]
                if saved > 0:
                    moves.append(((cost - costs[name][now]) / min(saved, excess), name, kind))
        _, name, kind = min(moves)
        types[name] = kind


def _fill_up(types: dict[str, BlockType], costs: Table, sizes: Sizes, budget: int) -> None:
    """Upgrade, at the greatest gain, while there is room."""
    while True:
        room = budget - sum(sizes[name][kind] for name, kind in types.items())
        moves = [
            (costs[name][now] - cost, name, kind)
            for name, now in types.items()
            for kind, cost in costs[name].items()
            if 0 < sizes[name][kind] - sizes[name][now] <= room and cost < costs[name][now]
        ]
        if not moves:
            return
        _, name, kind = max(moves)
        types[name] = kind
