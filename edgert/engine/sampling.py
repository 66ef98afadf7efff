"""Choosing the next token from a row of logits: bias, penalties, truncation, temperature, draw.

The order and the meaning of each step are llama.cpp's (`llama-sampler.cpp`, chain of `common/sampling.cpp`): top_p and
typical_p are cut on the distribution before temperature, each on what the step before left. Draws are counter-based:
the number for a position depends on the seed and the position alone (Philox4x64-10, Salmon et al. 2011), so neither
company nor chunks nor a restart can change it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from edgert_models.errors import BackendError, RequestError
from edgert_runtimes.base import Draw
from numpy.typing import NDArray

from edgert.engine.params import FALLBACKS, SamplingParams

Floats = NDArray[np.float32] | NDArray[np.float64]
_NEGLIGIBLE = 50.0  # e^-50 of the likeliest token's probability: less than the draw's resolution of 2^-53
_BINS, _BINS_PER_UNIT = 512, 16  # of logits or surprises, when looking for a cut: 32 nats below the best


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its log-probability (natural logarithm), and the likeliest tokens with theirs, best first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """SamplingParams made concrete for one request: model defaults filled in, ids checked, the seed fixed.

    `seed` is for params that name none.
    """

    def __init__(
        self,
        params: SamplingParams,
        *,
        vocabulary: int,
        end_ids: Collection[int] = (),
        defaults: Mapping[str, float] = FALLBACKS,
        seed: int | None = None,
    ) -> None:
        def pick(name: str) -> float:
            value = getattr(params, name)
            return float(defaults.get(name, FALLBACKS[name]) if value is None else value)

        for name, ids in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
            for token in ids:
                if token >= vocabulary:
                    reason = f"{name}: token {token} is outside the vocabulary of {vocabulary}"
                    raise RequestError(reason, parameter=name)
        given = seed if params.seed is None else params.seed
        self.seed = secrets.randbits(64) if given is None else given
        self.logprobs = params.logprobs
        self.temperature = pick("temperature")
        self.top_k = int(pick("top_k"))
        self.top_p, self.min_p, self.typical_p = pick("top_p"), pick("min_p"), params.typical_p
        self._repetition = pick("repetition_penalty")
        self._frequency, self._presence = params.frequency_penalty, params.presence_penalty
        last_n = int(pick("repeat_last_n"))
        penalised = (self._repetition, self._frequency, self._presence) != (1.0, 0.0, 0.0)
        self._window = last_n if penalised else 0
        self._biased = np.array(list(params.logit_bias), dtype=np.int64)
        self._bias = np.array(list(params.logit_bias.values()), dtype=np.float32)
        self._forbidden = sorted(end_ids) if params.ignore_eos else []
        # The largest logit wins, unless it is forbidden: nothing has to be copied.
        self._greedy = self.temperature == 0.0 and not penalised and not params.logit_bias

    def draw(self, position: int) -> Draw | None:
        """How `choose` will draw the token at a position, where that depends on nothing but the logits. It is a
        forecast: devices draw in float32.
        """
        if self._biased.size or self._window or self.typical_p < 1.0:
            return None
        if self.temperature == 0.0:
            return Draw()
        return Draw(self.temperature, self.top_k, self.top_p, self.min_p, uniform(self.seed, position))

    def choose(self, logits: NDArray[np.float32], tokens: Sequence[int]) -> TokenLogprob:
        """The token after `tokens`, given float32 logits [vocabulary], which are left as they are.

        The log-probability is 0.0 unless it was asked for. BackendError if the logits are NaN or all minus infinity.
        """
        token = int(logits.argmax())  # of the first NaN, if there is one
        best = float(logits[token])
        if not math.isfinite(best):
            raise BackendError(f"the model's logits at position {len(tokens)} are not finite (largest: {best})")
        if not self._greedy or token in self._forbidden:
            adjusted = self._adjust(logits, tokens)
            if adjusted is not logits and adjusted.max() == -np.inf:
                raise BackendError(f"no token is left to choose at position {len(tokens)}: all others are forbidden")
            token = self._draw(adjusted, len(tokens))
        if self.logprobs is None:
            return TokenLogprob(token, 0.0)
        normaliser = best + np.log(np.exp(logits.astype(np.float64) - best).sum())
        top = likeliest(logits, self.logprobs)
        top = top[np.argsort(-logits[top], kind="stable")]
        pairs = tuple((int(i), float(logits[i] - normaliser)) for i in top)
        return TokenLogprob(token, float(logits[token] - normaliser), pairs)

    def _adjust(self, logits: NDArray[np.float32], tokens: Sequence[int]) -> NDArray[np.float32]:
        """Bias, end tokens and penalties; a copy where anything changes."""
        if not (self._biased.size or self._forbidden or self._window):
            return logits
        logits = logits.copy()
        logits[self._biased] += self._bias
        logits[self._forbidden] = -np.inf
        if self._window:
            recent = tokens if self._window < 0 else tokens[-self._window :]
            seen, counts = np.unique(np.asarray(recent, dtype=np.int64), return_counts=True)
            values = logits[seen]
            values = np.where(values <= 0, values * self._repetition, values / self._repetition)
            logits[seen] = values - (counts * self._frequency + self._presence)
        return logits

    def _draw(self, logits: NDArray[np.float32], position: int) -> int:
        if self.temperature == 0.0:
            return int(logits.argmax())
        ids = likeliest(logits, self.top_k) if 0 < self.top_k < logits.size else np.arange(logits.size)
        if self.typical_p < 1.0:
            ids = _typical(ids, logits[ids], self.typical_p)
        if self.top_p < 1.0:
            ids = _nucleus(ids, logits[ids], self.top_p)
        values = logits[ids].astype(np.float64)
        floor = max(np.log(self.min_p) if self.min_p > 0.0 else -np.inf, -_NEGLIGIBLE * self.temperature)
        kept = values >= values.max() + floor
        ids, values = ids[kept], values[kept]
        weights = np.exp((values - values.max()) / self.temperature)
        heights = weights.cumsum()
        height = uniform(self.seed, position) * heights[-1]
        return int(ids[min(int(heights.searchsorted(height, side="right")), ids.size - 1)])


def uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) that belongs to a seed and a position."""
    return float(np.random.Generator(np.random.Philox(key=seed, counter=[0, position, 0, 0])).random())


def likeliest(logits: Floats, count: int) -> NDArray[np.int64]:
    """Indices of the `count` largest, ascending; of equals at the border the lower indices."""
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    if count >= logits.size:
        return np.arange(logits.size)
    border = np.partition(logits, logits.size - count)[logits.size - count]
    above = np.flatnonzero(logits > border)
    equal = np.flatnonzero(logits == border)[: count - above.size]
    return np.sort(np.concatenate([above, equal]))


def _softmax(values: Floats) -> NDArray[np.float64]:
    weights = np.exp(values.astype(np.float64) - float(values.max()))
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def _until(probabilities: NDArray[np.float64], order: Floats, p: float, *, strictly: bool) -> NDArray[np.int64]:
    """Indices, ascending, of the fewest entries in descending `order` whose probabilities reach (or exceed) p.

    Only the entries near the border are sorted: those that share a bin of `order` with it.
    """
    side: Literal["left", "right"] = "right" if strictly else "left"
    bins = np.minimum((order.max() - order) * _BINS_PER_UNIT, _BINS - 1).astype(np.int64)
    heights = np.bincount(bins, probabilities, _BINS).cumsum()
    border = int(heights.searchsorted(p, side))
    if border == _BINS:  # p is 1, but for rounding
        return np.arange(order.size)
    inside = np.flatnonzero(bins == border)
    inside = inside[np.argsort(-order[inside], kind="stable")]
    below = heights[border - 1] if border else 0.0
    count = int((below + probabilities[inside].cumsum()).searchsorted(p, side)) + 1
    return np.sort(np.concatenate([np.flatnonzero(bins < border), inside[:count]]))


def _nucleus(ids: NDArray[np.int64], values: Floats, p: float) -> NDArray[np.int64]:
    return ids[_until(_softmax(values), values, p, strictly=False)]


def _typical(ids: NDArray[np.int64], values: Floats, p: float) -> NDArray[np.int64]:
    probabilities = _softmax(values)
    surprise = -np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    entropy = float((probabilities * surprise).sum())
    return ids[_until(probabilities, -np.abs(surprise - entropy), p, strictly=True)]
