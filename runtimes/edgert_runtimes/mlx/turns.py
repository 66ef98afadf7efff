"""The angles of rotary position embeddings: the same for all layers, so they are found once a step, on the host.

A GPU turns heads in one kernel of MLX's own, which asks for the positions alone. On the CPU, MLX makes a dozen
primitives of that for the queries of every layer and another dozen for the keys; with angles at hand it takes three.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from edgert_models import ops
from edgert_models.graph import Plan
from edgert_models.rope import RopeLayout
from numpy.typing import NDArray

from edgert_runtimes.base import Int32
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
        self._frequencies = [frequencies(op, weights) for op in self._ropes.values()]

    def number(self, op: ops.Rope) -> int:
        """Which of `at` turns what a rope turns."""
        return list(self._ropes).index(_rotation(op))

    def at(self, positions: Int32) -> list[Turn]:
        """Those of rows at positions [rows]; none on a GPU."""
        if on_metal():
            return []
        found = []
        for op, each in zip(self._ropes.values(), self._frequencies, strict=True):
            angles = positions[:, None, None] * each
            cosines, sines = op.magnitude * np.cos(angles), op.magnitude * np.sin(angles)
            axis = 3 if op.layout is RopeLayout.INTERLEAVED else 2
            both = np.stack([-sines, sines], axis)
            found.append([mx.array(part.astype(np.float32)) for part in (np.expand_dims(cosines, axis), both)])
        return found


def frequencies(op: ops.Rope, weights: Weights) -> NDArray[np.float64]:
    """Radians a position of each pair: [pairs]."""
    factors = 1.0 if op.factors is None else np.asarray(weights.vectors[op.factors], np.float64)
    return np.array(op.frequencies) / factors


def _rotation(op: ops.Rope) -> object:
    return (op.frequencies, op.factors, op.magnitude, op.layout)
