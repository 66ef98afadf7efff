"""Which expert has which slot of a pool in the GPU's memory. Integers only.

An expert's score is the number of steps that used it, each counted half as much as one that came `HALF_LIFE` uses of
its mixture later: between "least frequently used" and "least recently used". The lowest score gives way.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

HALF_LIFE = 256
"""Steps of a mixture after which a use counts half."""

NONE = -1


class Slots:
    """The slots of one pool, shared by `mixtures` mixtures of `experts` experts each."""

    def __init__(self, slots: int, mixtures: int, experts: int) -> None:
        self.count = slots
        self.slot = np.full((mixtures, experts), NONE, np.int32)
        """Where an expert is, or NONE."""
        self._owner = np.full((slots, 2), NONE, np.int32)
        self._score = np.zeros((mixtures, experts))
        self._worth = np.ones(mixtures)  # of a use now: it grows, so that no score has to shrink

    def use(self, mixture: int, experts: np.ndarray) -> None:
        """Note that a step uses these experts, each named once."""
        self._worth[mixture] *= 2 ** (1 / HALF_LIFE)
        self._score[mixture, experts] += self._worth[mixture]
        if self._worth[mixture] > 2.0**64:  # long before numbers end
            self._score[mixture] /= self._worth[mixture]
            self._worth[mixture] = 1.0

    def score(self, mixture: int, expert: int) -> float:
        """What an expert's uses are worth now."""
        return float(self._score[mixture, expert] / self._worth[mixture])

    def place(self, mixture: int, expert: int, kept: Collection[int] = (), above: float | None = None) -> int:
        """Give an expert that has none a slot: a free one, or that of the lowest score, though none of `kept`.

        NONE where there is no such slot, or its expert's score is not below `above`.
        """
        assert self.slot[mixture, expert] == NONE
        owners = self._owner
        scores = self._score[owners[:, 0], owners[:, 1]] / self._worth[owners[:, 0]]
        scores[owners[:, 0] == NONE] = -np.inf
        scores[list(kept)] = np.inf
        slot = int(scores.argmin())
        if scores[slot] == np.inf or (above is not None and scores[slot] >= above):
            return NONE
        before = owners[slot].copy()
        if before[0] != NONE:
            self.slot[before[0], before[1]] = NONE
        owners[slot] = mixture, expert
        self.slot[mixture, expert] = slot
        return slot
