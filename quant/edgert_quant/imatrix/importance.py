"""Sums of squared inputs, and what they say of each expert where it has seen little."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from edgert_models.errors import ConversionError
from edgert_models.graph import Role, Weight
from numpy.typing import NDArray

POOL_ROWS = 64
"""So many rows of the layer's pool are added to what each expert has seen. An expert with as many of its own is half
its own; one that was never chosen is the pool. The mean square of a column settles within some tens of rows.
"""

LAYER = "blk."
"""How the names of matrices begin of which every importance matrix has the inputs."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one weight: `in_sum2` float32 [experts or 1, in], the sum of the squared inputs of each column, and `counts`
    int64 [experts or 1], the rows that were added up.
    """

    in_sum2: NDArray[np.float32]
    counts: NDArray[np.int64]

    @property
    def by_expert(self) -> bool:
        """Whether it says what each expert has seen."""
        return len(self.counts) > 1

    def pool(self) -> NDArray[np.float64]:
        """Mean squares over all experts, [in]; ones where there was no input at all."""
        rows = int(self.counts.sum())
        if not rows:
            return np.ones(self.in_sum2.shape[1])
        mean: NDArray[np.float64] = self.in_sum2.sum(axis=0, dtype=np.float64) / rows
        return mean


@dataclass(frozen=True)
class Importance:
    """What was found of a model, by weight name. `datasets` are the texts, of which `chunk_count` windows of
    `chunk_size` tokens were run. `path` is the file that it was read from, for messages.

    `counted` is False where the counts of experts are not their own: files of the older form do not have them.
    """

    sums: Mapping[str, Sums]
    datasets: tuple[str, ...] = ()
    chunk_count: int = 0
    chunk_size: int = 0
    counted: bool = True
    path: str = field(default="importance matrix", compare=False)

    def of(self, name: str) -> NDArray[np.float32] | None:
        """Mean squares of the inputs of a weight, float32 [experts or 1, in]; None if there are none of it.

        Those of an expert are (sum + k · pool) / (rows + k), where `pool` has the mean squares over all experts of the
        layer and k is `POOL_ROWS`.
        """
        found = self.sums.get(name)
        if found is None:
            return None
        pool = found.pool()
        if not found.by_expert:
            return pool[None].astype(np.float32)
        mean = (found.in_sum2 + POOL_ROWS * pool) / (found.counts[:, None] + POOL_ROWS)
        return np.asarray(mean, np.float32)

    def fitted(self, weights: Iterable[Weight]) -> Importance:
        """Only what is about these weights of a model, in their shapes.

        ConversionError names the first weight of a layer that is missing here, or has another shape: the matrix is of
        another model then. Output and embedding may be missing: they are seldom collected. So may routers, which are
        not quantized, and layers for multi-token prediction, which are not run.
        """
        kept: dict[str, Sums] = {}
        weights = list(weights)
        not_run = tuple(weight.name.partition("nextn.")[0] for weight in weights if ".nextn." in weight.name)
        for weight in weights:
            if weight.role is Role.VECTOR:
                continue
            found = self.sums.get(weight.name)
            if found is not None:
                kept[weight.name] = self._shaped(weight, found)
            elif weight.name.startswith(not_run):
                continue
            elif (weight.role is Role.MATRIX or weight.role.stacked) and weight.name.startswith(LAYER):
                raise ConversionError(f"{self.path}: has nothing about {weight.name}; is it of another model?")
        return replace(self, sums=kept)

    def _shaped(self, weight: Weight, found: Sums) -> Sums:
        experts = weight.shape[0] if weight.role.stacked else 1
        width = weight.shape[-1]
        if found.in_sum2.shape == (experts, width):
            return found
        if found.in_sum2.shape == (1, experts * width):  # one count for all: files of the older form, or made of them
            return Sums(found.in_sum2.reshape(experts, width), np.repeat(found.counts, experts))
        groups, own = found.in_sum2.shape
        raise ConversionError(
            f"{self.path}: has {groups} x {own} columns for {weight.name}, which has {experts} x {width}; "
            "is it of another model?"
        )
