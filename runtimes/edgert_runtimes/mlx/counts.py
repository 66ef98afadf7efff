"""Which experts routers chose, counted now and then: a step has little time for it."""

from __future__ import annotations

import threading

import mlx.core as mx
import numpy as np
from edgert_models.graph import Plan
from numpy.typing import NDArray

from edgert_runtimes.experts import expert_counts

KEPT = 64
"""Steps whose choices are kept until they are counted."""


class ExpertCounts:
    """Counts [mixtures, experts] of a session: see CountingSession. Any thread may read them."""

    def __init__(self, plan: Plan) -> None:
        self._counts = expert_counts(plan)
        self._kept: list[tuple[list[int], mx.array]] = []
        self._lock = threading.Lock()

    def add(self, sizes: list[int], chosen: mx.array) -> None:
        """The choices of a step, computed: those of all mixtures in one array, so many of each."""
        with self._lock:
            self._kept.append((sizes, chosen))
            if len(self._kept) == KEPT:
                self._count()

    def read(self) -> NDArray[np.int64]:
        """A copy."""
        with self._lock:
            self._count()
            return self._counts.copy()

    def _count(self) -> None:
        mixtures, experts = self._counts.shape
        for sizes, chosen in self._kept:
            first = np.repeat(np.arange(len(sizes)) * experts, sizes)
            found = np.bincount(np.asarray(chosen).ravel() + first, minlength=mixtures * experts)
            self._counts += found.reshape(mixtures, experts)
        self._kept.clear()
