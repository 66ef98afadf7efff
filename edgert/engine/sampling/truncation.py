"""Steps that keep some of the tokens: top-n-sigma, top-k, typical-p, top-p, min-p, XTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgert.engine.sampling.base import Candidates, Settings, Step, uniform
from edgert.engine.sampling.shares import entropy, fewest, likeliest, softmax

_XTC = 1  # the use of its random number; 0 is the draw's


@dataclass(frozen=True, slots=True)
class TopNSigma:
    """Keeps logits at most n standard deviations below the largest (Tang et al. 2024, arXiv 2411.07641)."""

    n: float

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """See Step."""
        logits = candidates.logits
        possible = logits if logits.min() > -np.inf else logits[logits > -np.inf]
        deviation = float(possible.std(dtype=np.float64))
        return candidates.keep(logits >= float(possible.max()) - self.n * deviation)


@dataclass(frozen=True, slots=True)
class TopK:
    """Keeps the k likeliest; of equals at the border the lower ids."""

    k: int

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """See Step."""
        return candidates.keep(likeliest(candidates.logits, self.k)) if self.k < candidates.ids.size else candidates


@dataclass(frozen=True, slots=True)
class TypicalP:
    """Keeps the fewest whose surprise is nearest the entropy, until they make up more than p (Meister et al. 2022,
    arXiv 2202.00666).
    """

    p: float

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """See Step."""
        probabilities = softmax(candidates.logits)
        surprises = -np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
        nearness = -np.abs(surprises - np.float32(entropy(probabilities)))
        return candidates.keep(fewest(probabilities, nearness, self.p, strictly=True))


@dataclass(frozen=True, slots=True)
class TopP:
    """Keeps the fewest likeliest that make up p (Holtzman et al. 2019, arXiv 1904.09751)."""

    p: float

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """See Step."""
        return candidates.keep(fewest(softmax(candidates.logits), candidates.logits, self.p, strictly=False))


@dataclass(frozen=True, slots=True)
class MinP:
    """Keeps those at least p times as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082)."""

    p: float

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """See Step."""
        logits = candidates.logits
        return candidates.keep(logits >= logits.max() + np.float32(np.log(self.p)))


@dataclass(frozen=True, slots=True)
class Xtc:
    """ "Exclude top choices": with some probability, takes away all that are at least as likely as `threshold`, but the
    least likely of them (p-e-w, text-generation-webui #6335; as llama.cpp has it).
    """

    probability: float
    threshold: float
    seed: int

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """See Step."""
        if candidates.ids.size < 2 or uniform(self.seed, len(tokens), _XTC) >= self.probability:
            return candidates
        probabilities = softmax(candidates.logits)
        top = np.flatnonzero(probabilities >= self.threshold)
        if top.size < 2:
            return candidates
        # Of equals the last is the least likely, as where ids are sorted by probability.
        spared = top[top.size - 1 - int(candidates.logits[top][::-1].argmin())]
        kept = probabilities < self.threshold
        kept[spared] = True
        return candidates.keep(kept)


def top_n_sigma(settings: Settings) -> Step | None:
    """TopNSigma, where it does something."""
    return TopNSigma(settings.params.top_n_sigma) if settings.params.top_n_sigma > 0 else None


def top_k(settings: Settings) -> Step | None:
    """TopK, where it does something."""
    return TopK(settings.top_k) if 0 < settings.top_k < settings.vocabulary else None


def typical_p(settings: Settings) -> Step | None:
    """TypicalP, where it does something."""
    return TypicalP(settings.params.typical_p) if settings.params.typical_p < 1.0 else None


def top_p(settings: Settings) -> Step | None:
    """TopP, where it does something."""
    return TopP(settings.top_p) if settings.top_p < 1.0 else None


def min_p(settings: Settings) -> Step | None:
    """MinP, where it does something."""
    return MinP(settings.min_p) if settings.min_p > 0.0 else None


def xtc(settings: Settings) -> Step | None:
    """Xtc, where it does something: of those above one half there is but one."""
    params = settings.params
    if params.xtc_probability == 0.0 or params.xtc_threshold > 0.5:
        return None
    return Xtc(params.xtc_probability, params.xtc_threshold, settings.seed)
