"""What a step of sampling is, and what steps are made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgert.engine.params import SamplingParams
from edgert.engine.sampling.breakers import Breakers

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its log-probability (natural logarithm), and the likeliest tokens with theirs, best first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens that may still be chosen, at least one: `ids` [n] ascending, and their logits, float32 [n]. Both arrays
    are left as they are: they may be the model's own.
    """

    ids: Ids
    logits: Floats

    def keep(self, places: NDArray[np.bool_] | Ids) -> Candidates:
        """Those at `places`: a mask, or ascending indices."""
        places = np.flatnonzero(places) if places.dtype == np.bool_ else places
        return Candidates(self.ids[places], self.logits[places])

    def only(self, allowed: NDArray[np.bool_]) -> Candidates:
        """Those that are `allowed`, of all tokens. Where these are most, the others stay with logits of minus infinity,
        which comes to the same: gathering what is kept would take longer.
        """
        if 2 * np.count_nonzero(allowed) < allowed.size:
            return self.keep(allowed)
        logits = self.logits.copy()
        logits[np.flatnonzero(~allowed)] = -np.inf
        return Candidates(self.ids, logits)

    def places(self, tokens: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """Where `tokens` are, and which of them are here at all; the places of the others mean nothing."""
        places = np.minimum(self.ids.searchsorted(tokens), self.ids.size - 1)
        return places, self.ids[places] == tokens

    def best(self) -> int:
        """The place of the largest logit, the first of equals."""
        return int(self.logits.argmax())


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """SamplingParams with everything settled: defaults filled in, the seed fixed, texts made tokens."""

    params: SamplingParams
    vocabulary: int
    seed: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    repeat_last_n: int
    breakers: Breakers | None = None
    end_ids: Collection[int] = ()
    pieces: Sequence[bytes] | None = None


class Step(Protocol):
    """One step of the chain, made for one request; it may have a memory of it."""

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """What is left after this step of the candidates for the token after `tokens`, prompt included. It is called
        once for every token that is chosen, in order.
        """


class Constraint(Protocol):
    """What holds one answer to a form, token by token: asked before every other step, and told what was chosen."""

    @property
    def finished(self) -> bool:
        """Whether nothing more may come: the answer is whole."""

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [vocabulary], at least one; RequestError where that cannot be told."""

    def accept(self, token: int) -> bool:
        """`token` comes next, unless it may not; whether it does."""

    def possible(self, tokens: Sequence[int]) -> int:
        """How many of `tokens` may come next, one after the other."""


class Pick(Protocol):
    """The end of the chain."""

    def __call__(self, candidates: Candidates, number: float) -> int:
        """The token, given a random number in [0, 1). Called once for every token, in order."""


@lru_cache(maxsize=4)
def every_id(vocabulary: int) -> Ids:
    """0 up to `vocabulary`, shared by all: not to be written to."""
    ids = np.arange(vocabulary)
    ids.flags.writeable = False
    return ids


def uniform(seed: int, position: int, use: int = 0) -> float:
    """The random number in [0, 1) that belongs to a seed, a position and a use: Philox4x64-10 (Salmon et al. 2011), so
    that neither company nor chunks nor a restart can change it.
    """
    return float(np.random.Generator(np.random.Philox(key=seed, counter=[0, position, use, 0])).random())
