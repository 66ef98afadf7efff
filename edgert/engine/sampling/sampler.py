"""The sampler of one request: bias and what may not come, then the chain, then log-probabilities."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from edgert_models.errors import BackendError, RequestError
from edgert_runtimes.base import Draw

from edgert.engine.params import FALLBACKS, SamplingParams
from edgert.engine.sampling.base import Candidates, Constraint, Floats, Settings, TokenLogprob, every_id, uniform
from edgert.engine.sampling.breakers import Breakers
from edgert.engine.sampling.picks import weighted
from edgert.engine.sampling.registry import chain, is_greedy
from edgert.engine.sampling.shares import likeliest

_FORGETFUL = ("top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "temperature")  # they look at the logits alone
_DEVICE_ORDER = ("top_k", "top_p", "min_p", "temperature")


class Sampler:
    """SamplingParams made concrete for one request: model defaults filled in, ids checked, the seed fixed.

    `end_ids` are the model's own end tokens, `seed` is for params that name none, `prompt` is the number of tokens
    before the answer, `breakers` are DRY's, as found in the tokens, `constraint` holds the answer to a form, and
    `pieces` are the bytes of every token, for "infill".
    """

    def __init__(
        self,
        params: SamplingParams,
        *,
        vocabulary: int,
        end_ids: Collection[int] = (),
        defaults: Mapping[str, float] = FALLBACKS,
        seed: int | None = None,
        prompt: int = 0,
        breakers: Breakers | None = None,
        constraint: Constraint | None = None,
        pieces: Sequence[bytes] | None = None,
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
        self.settings = Settings(
            params=params,
            vocabulary=vocabulary,
            seed=self.seed,
            temperature=pick("temperature"),
            top_k=int(pick("top_k")),
            top_p=pick("top_p"),
            min_p=pick("min_p"),
            repetition_penalty=pick("repetition_penalty"),
            repeat_last_n=int(pick("repeat_last_n")),
            breakers=breakers,
            end_ids=end_ids,
            pieces=pieces,
        )
        self._constraint = constraint
        self._steps, self._pick = chain(self.settings)
        self._names = tuple(name for name, _ in self._steps)
        self._biased = np.array(list(params.logit_bias), dtype=np.int64)
        self._bias = np.array(list(params.logit_bias.values()), dtype=np.float32)
        self._never = sorted(end_ids) if params.ignore_eos else []
        self._early = sorted({*end_ids, *params.stop_token_ids})
        self._early_until = prompt + params.min_tokens
        # The largest logit wins, unless it is forbidden: nothing has to be copied.
        self._plain = is_greedy(self.settings) and self._names == ("temperature",) and not params.logit_bias

    def draw(self, position: int) -> Draw | None:
        """How `choose` will draw the token at a position, where that depends on nothing but the logits, and devices
        know how. It is a forecast: devices draw in float32.
        """
        if self._constraint is not None:
            return None
        if self._plain:
            return Draw()
        params = self.settings.params
        order = tuple(name for name in _DEVICE_ORDER if name in self._names)
        if self._names != order or params.logit_bias or params.mirostat or params.dynatemp_range:
            return None
        chosen = {name: getattr(self.settings, name) for name in order}
        return Draw(**{"temperature": 1.0, **chosen}, number=uniform(self.seed, position))

    def accept(self, token: int, position: int, among: int) -> TokenLogprob | None:
        """What `choose` would give at a position for which a device drew `token` by `draw` from `among` logits; None
        where that takes the logits.
        """
        if not 0 <= token < self.settings.vocabulary or self.settings.params.logprobs is not None:
            return None
        forbidden = self._early if position < self._early_until else self._never
        certain = token not in forbidden if self._plain else not forbidden and among == self.settings.vocabulary
        return TokenLogprob(token, 0.0) if certain else None

    def choose(self, logits: Floats, tokens: Sequence[int]) -> TokenLogprob:
        """The token after `tokens`, given float32 logits [vocabulary], which are left as they are. It is called once
        for each token, in order: some steps remember.

        The log-probability is 0.0 unless it was asked for. BackendError if the logits are NaN or all minus infinity.
        """
        token = int(logits.argmax())  # of the first NaN, if there is one
        best = float(logits[token])
        if not math.isfinite(best):
            raise BackendError(f"the model's logits at position {len(tokens)} are not finite (largest: {best})")
        forbidden = self._early if len(tokens) < self._early_until else self._never
        constraint = self._constraint
        # The likeliest is the choice where nothing forbids it; to ask for one token is cheaper than for all.
        if not (self._plain and token not in forbidden and (constraint is None or constraint.accept(token))):
            allowed = None if constraint is None else constraint.allowed()
            adjusted = self._adjust(logits, forbidden)
            candidates = Candidates(every_id(logits.size), adjusted)
            if allowed is not None:
                candidates = candidates.only(allowed)
            if candidates.logits is not logits and candidates.logits.max() == -np.inf:
                raise BackendError(f"no token is left to choose at position {len(tokens)}: all others are forbidden")
            for _, step in self._steps:
                candidates = step(candidates, tokens)
            # What is alone is chosen whatever the number, which takes long to make.
            number = 0.0 if candidates.ids.size == 1 else uniform(self.seed, len(tokens))
            token = self._pick(candidates, number)
            if constraint is not None and not constraint.accept(token):
                raise BackendError(f"token {token} was allowed at position {len(tokens)}, but does not come")
        if self.settings.params.logprobs is None:
            return TokenLogprob(token, 0.0)
        normaliser = best + np.log(np.exp(logits.astype(np.float64) - best).sum())
        top = likeliest(logits, self.settings.params.logprobs)
        top = top[np.argsort(-logits[top], kind="stable")]
        pairs = tuple((int(i), float(logits[i] - normaliser)) for i in top)
        return TokenLogprob(token, float(logits[token] - normaliser), pairs)

    def guess(self, logits: Floats, position: int) -> int:
        """What `choose` would take at a position, given such logits [vocabulary], if nothing depended on the tokens
        before; nothing is remembered.
        """
        if is_greedy(self.settings):
            return int(logits.argmax())
        candidates = Candidates(every_id(logits.size), logits)
        for name, step in self._steps:
            if name in _FORGETFUL:
                candidates = step(candidates, ())
        return weighted(candidates, uniform(self.seed, position))

    def possible(self, tokens: list[int]) -> list[int]:
        """Those of `tokens` that may come next, one after the other, as far as the form of the answer is concerned."""
        return tokens if self._constraint is None else tokens[: self._constraint.possible(tokens)]

    @property
    def finished(self) -> bool:
        """Whether the form of the answer allows nothing more."""
        return self._constraint is not None and self._constraint.finished

    def _adjust(self, logits: Floats, forbidden: Sequence[int]) -> Floats:
        """Bias, and tokens that may not come; a copy where anything changes."""
        if not (self._biased.size or forbidden):
            return logits
        logits = logits.copy()
        logits[self._biased] += self._bias
        logits[forbidden] = -np.inf
        return logits
