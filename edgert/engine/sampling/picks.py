"""The end of the chain: a draw, which mirostat precedes with a cut of its own."""

from __future__ import annotations

import math

import numpy as np

from edgert.engine.sampling.base import Candidates, Floats
from edgert.engine.sampling.shares import likeliest, place_at, softmax

_MOST = 100  # tokens that mirostat 1 looks at, as llama.cpp does


def weighted(candidates: Candidates, number: float) -> int:
    """A draw by probability, the tokens side by side in the order of their ids. See Pick."""
    logits = candidates.logits
    return int(candidates.ids[place_at(np.exp(logits - logits.max()), number)])


class Mirostat:
    """Keeps the surprise of what is drawn, in bits, near `tau` on average (Basu et al. 2021, arXiv 2007.14966): what is
    too surprising for the running limit mu is cut before the draw, and mu moves by `eta` times the error after it.
    """

    def __init__(self, tau: float, eta: float) -> None:
        self._tau, self._eta = tau, eta
        self.mu = 2.0 * tau

    def __call__(self, candidates: Candidates, number: float) -> int:
        """See Pick."""
        candidates = self.cut(candidates)
        probabilities = softmax(candidates.logits)
        place = place_at(probabilities, number)
        self.mu -= self._eta * (-math.log2(probabilities[place]) - self._tau)
        return int(candidates.ids[place])

    def cut(self, candidates: Candidates) -> Candidates:
        """Version 2: those whose surprise is at most mu, and the likeliest in any case."""
        probabilities = softmax(candidates.logits)
        floor = min(2.0**-self.mu, float(probabilities.max()))
        return candidates.keep(probabilities >= floor)


class Mirostat1(Mirostat):
    """Version 1: the k likeliest, where k follows from mu if the probabilities fall with the rank by Zipf's law, whose
    exponent is estimated from the likeliest 100.
    """

    def __init__(self, tau: float, eta: float, vocabulary: int) -> None:
        super().__init__(tau, eta)
        self._vocabulary = vocabulary

    def cut(self, candidates: Candidates) -> Candidates:
        """See the class."""
        kept = self.size(candidates.logits)
        return candidates.keep(likeliest(candidates.logits, kept)) if kept < candidates.ids.size else candidates

    def size(self, logits: Floats) -> int:
        """k, from 1 to the number of logits."""
        top = np.sort(logits[likeliest(logits, _MOST)])[::-1].astype(np.float64)
        top = top[top > -np.inf]
        if top.size < 2:
            return 1
        ranks = np.arange(1, top.size)
        steps = np.log((ranks + 1) / ranks)
        exponent = float((steps * (top[:-1] - top[1:])).sum() / (steps * steps).sum())
        if exponent <= 0.0:  # all alike: no rank is rarer than another
            return logits.size
        excess = exponent - 1.0
        size = math.log(self._vocabulary)
        # excess / (1 - vocabulary^-excess), which is continuous at 0
        scale = excess / -math.expm1(-excess * size) if abs(excess) > 1e-9 else 1.0 / size
        log_k = (math.log(scale) + self.mu * math.log(2.0)) / exponent
        return logits.size if log_k >= math.log(logits.size) else max(1, int(math.exp(log_k)))
