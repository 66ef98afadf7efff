"""Drawing tokens on the device: the next step begins with them, and the host needs no logits where they are certain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from edgert_runtimes.base import Draw

BLOCK = 512
"""Numbers that are added up one after the other; then the blocks' sums are. So errors stay small."""

DOUBT = 1e-4
"""Shares nearer than this to where a draw changes are left open. Sums of n float32 numbers in blocks err by at most
(BLOCK + n / BLOCK) 2^-24 of the whole, which is half of it for 150,000 tokens.
"""


class Drawing:
    """Compiled for every shape of logits that it meets."""

    def __init__(self) -> None:
        self._sample: Any = mx.compile(_sample)

    def draw(self, logits: mx.array, draws: Sequence[Draw]) -> tuple[mx.array, mx.array]:
        """A token for each row of float32 logits [rows, vocabulary], and the same but -1 where exact arithmetic might
        give another, or logits are not finite: int32 [rows] both. See `Draw` and `Drawn`.
        """
        if all(draw.temperature == 0 for draw in draws):
            tokens = logits.argmax(axis=-1).astype(mx.int32)
            return tokens, mx.where(mx.isfinite(logits.max(axis=-1)), tokens, -1)
        columns = np.array([_columns(draw, logits.shape[-1]) for draw in draws], np.float32).T[:, :, None]
        tokens, certain = self._sample(logits, mx.array(columns))
        return tokens, certain

    def close(self) -> None:
        """Let go of what was compiled, in the thread that ran it: see `lower.Part`."""
        self._sample = None


def _sample(logits: mx.array, columns: mx.array) -> tuple[mx.array, mx.array]:
    kept, temperature, likeness, share, number = columns
    size = logits.shape[-1]
    falling = -mx.sort(-logits, axis=-1)
    best = logits.max(axis=-1, keepdims=True)  # NaN where any is
    weights = mx.where(mx.arange(size) < kept, mx.exp(falling - best), 0.0)
    reached = _heights(weights)
    reached, weights = (each / reached[:, -1:] for each in (reached, weights))
    before = reached - weights  # what the likelier ones make up
    inside = (weights > 0) & ((before < share) | (share >= 1)) & (falling >= best + likeness)
    border = mx.where(inside, falling, best).min(axis=-1, keepdims=True)
    taken = logits >= border
    heights = _heights(mx.where(taken, mx.exp((logits - best) / temperature), 0.0))
    drawn = number * heights[:, -1:]
    tokens = mx.minimum((heights <= drawn).sum(axis=-1), size - 1).astype(mx.int32)

    near = (mx.abs(before - share) < DOUBT) & (share < 1) & (share > 0)
    near = near | (mx.abs(heights - drawn) < DOUBT * heights[:, -1:]) & (taken.sum(axis=-1, keepdims=True) > 1)
    equals = taken.sum(axis=-1) != mx.maximum(inside.sum(axis=-1), 1)  # of which the first are taken
    return tokens, mx.where(near.any(axis=-1) | equals | ~mx.isfinite(best[:, 0]), -1, tokens)


def _columns(draw: Draw, size: int) -> tuple[float, float, float, float, float]:
    """How many are kept, the temperature, the logarithm of the least likeness to the likeliest, the share, the number.
    A row that takes the largest is one of which only the first is kept.
    """
    if draw.temperature == 0:
        return 1, 1.0, -np.inf, 1.0, draw.number
    likeness = float(np.log(draw.min_p)) if draw.min_p > 0 else -np.inf
    return draw.top_k or size, draw.temperature, likeness, draw.top_p, draw.number


def _heights(x: mx.array) -> mx.array:
    """Sums of x [rows, n] up to each place."""
    rows, size = x.shape
    blocks = mx.pad(x, [(0, 0), (0, -size % BLOCK)]).reshape(rows, -1, BLOCK)
    sums = blocks.cumsum(axis=-1)
    totals = sums[:, :, -1:]
    return (sums + (totals.cumsum(axis=1) - totals)).reshape(rows, -1)[:, :size]
