"""The rows that recurrent states go through: found on the host once a step, for all layers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import mlx.core as mx
import numpy as np

from edgert_runtimes.base import Batch, Limits
from edgert_runtimes.batches import runs_of


@dataclass(frozen=True, slots=True)
class Run:
    """`rows` of a batch, `count` of each of some sequences; the slots of states that these read and write, and which of
    them begin with zeros instead, bool [sequences], or None where none does.
    """

    rows: slice
    count: int
    source: mx.array
    target: mx.array
    fresh: mx.array | None

    def rows_of(self, x: mx.array) -> mx.array:
        """Rows of x as [sequences, count, width]."""
        return x[self.rows].reshape(len(self.target), self.count, -1)

    def state(self, slots: mx.array) -> mx.array:
        """What the sequences continue from, [sequences, …]."""
        before = slots[self.source]
        if self.fresh is None:
            return before
        return mx.where(self.fresh.reshape(-1, *[1] * (before.ndim - 1)), 0, before)


def make_runs(batch: Batch, limits: Limits) -> list[Run]:
    """The runs of a batch; sequences that have equally many rows go together."""
    runs = runs_of(batch, limits)
    runs = runs[runs[:, 1] > 0]
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    found = []
    for count, group in groupby(runs.tolist(), lambda run: int(run[1])):
        first, _, source, target = np.array(list(group), np.int32).T
        rows = slice(int(first[0]), int(first[-1]) + count)
        fresh = mx.array(source < 0) if (source < 0).any() else None
        found.append(Run(rows, count, mx.array(np.maximum(source, 0)), mx.array(target), fresh))
    return found
