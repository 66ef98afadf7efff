"""DRY ("don't repeat yourself"): against going on with what was said before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgert.engine.sampling.base import Candidates, Settings, Step
from edgert.engine.sampling.breakers import Breakers

_LARGEST = 1e30  # a penalty that nothing outweighs, far from the end of float32


class Dry:
    """A token that would make a repeat of n tokens one longer loses multiplier * base^(n - allowed), where n is at
    least `allowed` (p-e-w, text-generation-webui #5677; as llama.cpp has it). Of several repeats the longest counts.

    A repeat is a stretch that ends before the token in question, and is also at the end of all tokens. Only the last
    `last_n` tokens, prompt included, are looked at (-1: all), and none before the end of the last of the `breakers`; a
    token that has a breaker within it is never made less likely.
    """

    def __init__(
        self, multiplier: float, base: float, allowed: int, last_n: int, breakers: Breakers | None = None
    ) -> None:
        self._multiplier, self._base, self._allowed = multiplier, base, allowed
        self._last_n = last_n
        self._breakers = breakers
        self._free = np.array(sorted(breakers.containing if breakers else ()), dtype=np.int64)
        self._steepest = math.log(_LARGEST) / math.log(base) if base > 1 else math.inf  # exponent
        self._tokens = np.empty(0, dtype=np.int64)  # those that are looked at
        self._repeats = np.empty(0, dtype=np.int64)  # for each, how many up to it are alike those up to the end
        self._end = 0  # of the tokens that have been taken in
        self._since = 0  # tokens since the last breaker

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """See Step."""
        self._take(tokens)
        # None begins before what is looked at, and none before a breaker.
        lengths = np.minimum(self._repeats[:-1], np.arange(1, self._tokens.size))
        lengths = np.minimum(lengths, self._since)
        found = np.flatnonzero(lengths >= self._allowed)
        # In ascending order of length: of the same token, the last, with the longest repeat, is what holds.
        found = found[np.argsort(lengths[found], kind="stable")]
        next_tokens, lengths = self._tokens[found + 1], lengths[found]
        wanted = ~np.isin(next_tokens, self._free)
        next_tokens, lengths = next_tokens[wanted], lengths[wanted]
        if not next_tokens.size:
            return candidates
        exponents = np.minimum(lengths - self._allowed, self._steepest)
        losses = np.minimum(self._multiplier * np.power(float(self._base), exponents), _LARGEST)
        places, here = candidates.places(next_tokens)
        losing = np.zeros(candidates.logits.size, dtype=np.float32)
        losing[places[here]] = losses[here]
        return Candidates(candidates.ids, candidates.logits - losing)

    def _take(self, tokens: Sequence[int]) -> None:
        """Take in what came since the last time."""
        begin = 0 if self._last_n < 0 else max(0, len(tokens) - self._last_n)
        if not self._end:
            self._tokens = np.array(tokens[begin:], dtype=np.int64)
            self._repeats = common_suffixes(self._tokens.tolist())
        fresh = range(len(tokens), max(begin, self._end), -1)
        broken = (end for end in fresh if self._breakers is not None and self._breakers.end_at(tokens, end))
        self._since = len(tokens) - next(broken, len(tokens) - self._since - len(fresh))
        for token in tokens[self._end :] if self._end else ():
            longer = np.where(self._tokens == token, np.concatenate([[0], self._repeats[:-1]]) + 1, 0)
            self._tokens = np.append(self._tokens, token)
            self._repeats = np.append(longer, self._repeats.size + 1)
        self._end = len(tokens)
        surplus = self._tokens.size - (len(tokens) - begin)
        self._tokens, self._repeats = self._tokens[surplus:], self._repeats[surplus:]


def common_suffixes(tokens: Sequence[int]) -> NDArray[np.int64]:
    """For each place, how many tokens up to there are alike those up to the end: the Z-function of the reversed tokens
    (Gusfield 1997, section 1.3), backwards. Takes time in proportion to the tokens.
    """
    back = tokens[::-1]
    size = len(back)
    lengths = [size] * size
    left = right = 0  # the stretch known to be alike the beginning that reaches furthest
    for place in range(1, size):
        length = min(right - place, lengths[place - left]) if place < right else 0
        while place + length < size and back[length] == back[place + length]:
            length += 1
        if place + length > right:
            left, right = place, place + length
        lengths[place] = length
    return np.array(lengths[::-1], dtype=np.int64)


def dry(settings: Settings) -> Step | None:
    """Dry, where it does something."""
    params = settings.params
    if params.dry_multiplier == 0.0 or params.dry_penalty_last_n == 0:
        return None
    return Dry(
        params.dry_multiplier,
        params.dry_base,
        params.dry_allowed_length,
        params.dry_penalty_last_n,
        settings.breakers,
    )
