"""The angles of rotary position embeddings: the same for all layers, so they are found once a step.

A GPU turns heads in one kernel of MLX's own, which asks for the positions alone. On the CPU, MLX makes a dozen
primitives of that for the queries of every layer and another dozen for the keys; with angles at hand it takes three.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from edgert_models import ops
from edgert_models.graph import Plan
from edgert_models.rope import RopeLayout
from numpy.typing import NDArray

from edgert_runtimes.mlx.device import on_metal
from edgert_runtimes.mlx.weights import Weights

Turn = list[mx.array]
"""Cosines, and ∓ sines that belong to the other element of each pair (a, b), both times the magnitude: float32
[rows, 1, 1, pairs] and [rows, 1, 2, pairs], or [rows, 1, pairs, 1] and [rows, 1, pairs, 2] where pairs are interleaved.
"""


class Turns:
    """The different rotations of a plan, numbered."""

    def __init__(self, plan: Plan, weights: Weights) -> None:
        self._ropes: dict[object, ops.Rope] = {_rotation(op): op for op in plan.ops if isinstance(op, ops.Rope)}
        self._frequencies = [mx.array(frequencies(op, weights).astype(np.float32)) for op in self._ropes.values()]
        self._compiled: Any = mx.compile(self._at)

    def number(self, op: ops.Rope) -> int:
        """Which of `at` turns what a rope turns."""
        return list(self._ropes).index(_rotation(op))

    def at(self, positions: mx.array, *, compiled: bool) -> list[Turn]:
        """Those of rows at positions [rows]; none on a GPU. `compiled` as `Part.run` has it."""
        if on_metal() or not self._ropes:
            return []
        found: list[Turn] = (self._compiled if compiled else self._at)(positions)
        return found

    def close(self) -> None:
        """See Part."""
        self._compiled = None

    def _at(self, positions: mx.array) -> list[Turn]:
        found = []
        for op, each in zip(self._ropes.values(), self._frequencies, strict=True):
            axis = 3 if op.layout is RopeLayout.INTERLEAVED else 2
            angles = positions.reshape(-1, 1, 1, 1) * (each[:, None] if axis == 3 else each)
            cosines, sines = op.magnitude * mx.cos(angles), op.magnitude * mx.sin(angles)
            found.append([cosines, mx.concatenate([-sines, sines], axis)])
        return found


def frequencies(op: ops.Rope, weights: Weights) -> NDArray[np.float64]:
    """Radians a position of each pair: [pairs]."""
    factors = 1.0 if op.factors is None else np.asarray(weights.vectors[op.factors], np.float64)
    return np.array(op.frequencies) / factors


def _rotation(op: ops.Rope) -> object:
    return (op.frequencies, op.factors, op.magnitude, op.layout)
