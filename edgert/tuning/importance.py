"""How much each column of a matrix counts: the mean square of what enters it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from edgert_models import ops
from edgert_runtimes.layerwise import Observer
from numpy.typing import NDArray

from edgert.tuning.material import Material, Model

Floats32 = NDArray[np.float32]

POOL = 64
"""Rows of the whole layer's inputs that are added to those of an expert, so that rare ones are not judged by a few."""


class Importance(Observer):
    """Collects squares of inputs while a model runs."""

    def __init__(self) -> None:
        self._squares: dict[str, NDArray[np.float64]] = {}
        self.counts: dict[str, NDArray[np.int64]] = {}
        self._experts: Mapping[str, int] = {}

    @classmethod
    def measured(cls, material: Material) -> Importance:
        """Of every matrix, over the whole calibration text."""
        found = cls()
        for batch in (*material.fit, *material.held):
            material.model.walk().run(batch, observer=found)
        return found

    def before(self, op: ops.Op, inputs: list[NDArray[np.floating[Any]]]) -> None:
        """See `Observer`."""
        if isinstance(op, ops.Moe):
            for name in (op.gate, op.up, op.down):
                self.counts.setdefault(name, np.zeros(op.experts, np.int64))

    def matrix(self, name: str, x: NDArray[np.floating[Any]]) -> None:
        """See `Observer`."""
        self.counts.setdefault(name, np.zeros(1, np.int64))
        self._add(name, 0, x)

    def expert(self, name: str, expert: int, x: NDArray[np.floating[Any]], rows: NDArray[np.intp]) -> None:
        """See `Observer`."""
        self._add(name, expert, x)

    def _add(self, name: str, index: int, x: NDArray[np.floating[Any]]) -> None:
        held = self._squares.setdefault(name, np.zeros((len(self.counts[name]), x.shape[1])))
        held[index] += np.einsum("rn,rn->n", x, x, dtype=np.float64)
        self.counts[name][index] += len(x)

    def of(self, name: str) -> Floats32 | None:
        """Mean squares float32 [experts or 1, in], or None for what was not seen. An expert's few rows are helped out
        by `POOL` rows of the mean over all experts.
        """
        if name not in self._squares:
            return None
        squares, counts = self._squares[name], self.counts[name][:, None]
        pool = squares.sum(axis=0) / max(int(counts.sum()), 1)
        if len(squares) == 1:
            return np.asarray(pool[None], np.float32)
        return np.asarray((squares + POOL * pool) / (counts + POOL), np.float32)

    @staticmethod
    def matrices(model: Model) -> list[str]:
        """Tensors that are quantized, in the order of the file."""
        return [name for name, weight in model.plan.weights.items() if not weight.role.stays_float]
