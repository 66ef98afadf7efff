"""What a reference predicts, kept as its likeliest tokens: how far a model is from it, and which way it lies.

All but the `ids` [rows, k] are one bucket. With p for the reference and q for the model, the divergence of a row is
Σ p ln(p / q) over the listed tokens and the bucket, in nats; it never exceeds the divergence over all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating[Any]]

MOST = 256
"""Tokens that are listed."""


@dataclass(frozen=True)
class Targets:
    """`ids` int32 [rows, k]; `likely` float32 [rows, k], their probabilities; `rest` float32 [rows], that of the
    bucket, which is 0 where every token is listed.
    """

    ids: NDArray[np.int32]
    likely: NDArray[np.float32]
    rest: NDArray[np.float32]

    @classmethod
    def of(cls, logits: Rows, most: int = MOST) -> Targets:
        """From logits [rows, vocabulary]."""
        p = np.exp(_centered(logits))
        p /= p.sum(axis=1, keepdims=True, dtype=np.float64)
        if most >= p.shape[1]:
            ids = np.broadcast_to(np.arange(p.shape[1], dtype=np.int32), p.shape)
            return cls(ids, p, np.zeros(len(p), np.float32))
        ids = np.argpartition(-p, most - 1, axis=1)[:, :most].astype(np.int32)
        likely = np.take_along_axis(p, ids, axis=1)
        return cls(ids, likely, np.maximum(1 - likely.sum(axis=1, dtype=np.float64), 0).astype(np.float32))

    @cached_property
    def _entropy(self) -> NDArray[np.float64]:
        """Σ p ln p of every row, the bucket's included."""
        p = np.concatenate([self.likely, self.rest[:, None]], axis=1)
        logs: NDArray[np.float32] = np.log(np.maximum(p, np.float32(1e-38)))
        logs *= p
        return np.asarray(logs.sum(axis=1, dtype=np.float64))

    def divergence(self, logits: Rows) -> NDArray[np.float64]:
        """Of a model with these logits [rows, vocabulary], for every row."""
        z = _centered(logits)
        e = np.exp(z)
        total = e.sum(axis=1, dtype=np.float64)
        z, listed = self._listed(z), self._listed(e).sum(axis=1, dtype=np.float64)
        cross = np.einsum("rk,rk->r", self.likely, z, dtype=np.float64) - self.likely.sum(axis=1) * np.log(total)
        rest = np.log(np.maximum((total - listed) / total, 1e-12))
        return np.asarray(np.maximum(self._entropy - cross - self.rest * rest, 0.0))

    def slope(self, logits: Rows) -> Rows:
        """The derivative of the mean divergence by the logits."""
        q = np.exp(_centered(logits))
        q /= q.sum(axis=1, keepdims=True)
        listed = self._listed(q)
        # By logit i: q_i less p_i where it is listed, and its share of p's bucket where it is not.
        share = self.rest / np.maximum(1 - listed.sum(axis=1), 1e-12)
        gradient = q * np.asarray(1 - share, np.float32)[:, None]
        np.put_along_axis(gradient, self.ids.astype(np.intp), listed - self.likely, axis=1)
        return np.asarray(gradient / len(q), logits.dtype)

    def _listed(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.ids.shape == values.shape:  # every token, in order
            return values
        return np.take_along_axis(values, self.ids.astype(np.intp), axis=1)


def _centered(logits: Rows) -> NDArray[np.float32]:
    """Logits float32 whose largest of each row is 0."""
    return np.asarray(logits - logits.max(axis=1, keepdims=True), np.float32)
