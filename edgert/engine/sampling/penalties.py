"""Against repeating tokens: repetition, frequency and presence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgert.engine.sampling.base import Candidates, Settings, Step


class Penalties:
    """The logits of tokens seen lately are divided by `repetition` where positive, else multiplied by it (Keskar et al.
    2019, arXiv 1909.05858, mended for negative logits); then `frequency` is subtracted for each time, and `presence`
    once. Lately: among the last `last_n` tokens, prompt included; -1: all.
    """

    def __init__(self, repetition: float, frequency: float, presence: float, last_n: int) -> None:
        self._repetition, self._frequency, self._presence = repetition, frequency, presence
        self._last_n = last_n
        self._counts: Counter[int] = Counter()
        self._begin = self._end = 0  # the tokens that are counted

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """See Step."""
        self._count(tokens)
        seen = np.fromiter(self._counts.keys(), np.int64, len(self._counts))
        counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
        places, here = candidates.places(seen)
        places, counts = places[here], counts[here]
        values = candidates.logits[places]
        values = np.where(values <= 0, values * self._repetition, values / self._repetition)
        logits = candidates.logits.copy()
        logits[places] = values - (counts * self._frequency + self._presence)
        return Candidates(candidates.ids, logits)

    def _count(self, tokens: Sequence[int]) -> None:
        """Take in what came since the last time, and let go what is too long ago."""
        begin = 0 if self._last_n < 0 else max(0, len(tokens) - self._last_n)
        for token in tokens[max(begin, self._end) :]:
            self._counts[token] += 1
        for token in tokens[self._begin : min(begin, self._end)]:
            self._counts[token] -= 1
            if not self._counts[token]:
                del self._counts[token]
        self._begin, self._end = begin, len(tokens)


def penalties(settings: Settings) -> Step | None:
    """Penalties, where one of them does something."""
    strengths = settings.repetition_penalty, settings.params.frequency_penalty, settings.params.presence_penalty
    if strengths == (1.0, 0.0, 0.0) or settings.repeat_last_n == 0:
        return None
    return Penalties(*strengths, settings.repeat_last_n)
