"""What a caller may ask of sampling."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from edgert_models.errors import RequestError

MAX_LOGPROBS = 20
FALLBACKS: Mapping[str, float] = MappingProxyType(
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.0, "repeat_last_n": 64}
)
"""llama.cpp's defaults (`common_params_sampling`): what holds where neither the caller nor the model says otherwise."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen and when to stop. RequestError names the parameter that is out of range.

    Where a field says "model", None means what the model file recommends (`general.sampling.*`), or else llama.cpp's
    default, given in brackets. The steps run in llama.cpp's order: logit_bias, penalties, top_k, typical_p, top_p,
    min_p, temperature. With `temperature` 0 the most likely token after bias and penalties is taken (the lowest id of
    equals) and the steps between do not matter.
    """

    max_tokens: int | None = None
    """Tokens to generate at most, from 1. None: until the model stops or the context is full."""
    temperature: float | None = None
    """0 to 100: greedy at 0. None: model [0.8]."""
    top_k: int | None = None
    """Keep the k most likely tokens; 0: all. None: model [40]."""
    top_p: float | None = None
    """Keep the fewest likeliest tokens whose probabilities sum to p; 0 to 1, 1: all. None: model [0.95]."""
    min_p: float | None = None
    """Keep tokens at least p times as likely as the likeliest; 0 to 1, 0: all. None: model [0.05]."""
    typical_p: float = 1.0
    """Keep the tokens whose surprise is nearest the entropy until they sum to p; 0 to 1, 1: all (Meister et al. 2022,
    arXiv 2202.00666)."""
    repetition_penalty: float | None = None
    """Logits of tokens seen lately are divided by this where positive, else multiplied; above 0, 1: off. None:
    model [1]."""
    repeat_last_n: int | None = None
    """How many of the last tokens, prompt included, all three penalties look at; 0: none, -1: all. None: model [64]."""
    frequency_penalty: float = 0.0
    """Subtracted from a logit for each time the token was seen lately; -2 to 2."""
    presence_penalty: float = 0.0
    """Subtracted from a logit if the token was seen lately; -2 to 2."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits, by token id; -100 to 100."""
    seed: int | None = None
    """0 to 2^64 - 1. The same seed gives the same tokens, whatever else runs. None: the model's, or a fresh one."""
    stop: str | Sequence[str] = ()
    """Texts that end the answer and are not part of it; kept as a tuple. Seen by `LLM`, not by the engine."""
    stop_token_ids: Sequence[int] = ()
    """Tokens that end the answer, besides the model's own; kept as a tuple."""
    logprobs: int | None = None
    """0 to 20: report the log-probability of each token and of as many likeliest ones. They are of the model's own
    distribution, before bias, penalties, temperature and the rest. None: do not report."""
    ignore_eos: bool = False
    """Never choose the model's own end tokens (as llama.cpp: their logits become minus infinity)."""

    def __post_init__(self) -> None:
        _integer("max_tokens", self.max_tokens, 1, None)
        _number("temperature", self.temperature, 0.0, 100.0)
        _integer("top_k", self.top_k, 0, None)
        for name in ("top_p", "min_p", "typical_p"):
            _number(name, getattr(self, name), 0.0, 1.0)
        _number("repetition_penalty", self.repetition_penalty, 1e-3, 1e3)
        _integer("repeat_last_n", self.repeat_last_n, -1, None)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _integer("seed", self.seed, 0, 2**64 - 1)
        _integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if not isinstance(self.ignore_eos, bool):
            raise RequestError(f"ignore_eos must be true or false, not {self.ignore_eos!r}", parameter="ignore_eos")
        for name in ("typical_p", "frequency_penalty", "presence_penalty"):
            if getattr(self, name) is None:
                raise RequestError(f"{name} must be a number, not None", parameter=name)
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))
        object.__setattr__(self, "stop", _stops(self.stop))
        object.__setattr__(self, "stop_token_ids", _token_ids(self.stop_token_ids))

    def __hash__(self) -> int:
        return hash((self.max_tokens, self.temperature, self.seed, self.stop, self.stop_token_ids))


def _integer(name: str, value: Any, low: int, high: int | None) -> None:
    if value is None:
        return
    expected = f"an integer from {low}" + ("" if high is None else f" to {high}")
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        raise RequestError(f"{name} must be {expected}, not {value!r}", parameter=name)


def _number(name: str, value: Any, low: float, high: float) -> None:
    if value is None:
        return
    # A NaN fails the comparison.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}", parameter=name)


def _bias(value: Any) -> Mapping[int, float]:
    if not isinstance(value, Mapping):
        raise RequestError(f"logit_bias must map token ids to numbers, not {value!r}", parameter="logit_bias")
    for token, bias in value.items():
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise RequestError(f"logit_bias: {token!r} is not a token id", parameter="logit_bias")
        ok = isinstance(bias, int | float) and not isinstance(bias, bool) and math.isfinite(bias) and abs(bias) <= 100
        if not ok:
            reason = f"logit_bias of token {token} must be a number from -100 to 100, not {bias!r}"
            raise RequestError(reason, parameter="logit_bias")
    return {token: float(bias) for token, bias in value.items()}  # a copy of our own


def _stops(value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else value
    if stops is None or not isinstance(stops, Iterable):
        raise RequestError(f"stop must be a text or several, not {value!r}", parameter="stop")
    stops = tuple(stops)
    for stop in stops:
        if not isinstance(stop, str) or not stop:
            raise RequestError(f"stop: {stop!r} is not a text of at least one character", parameter="stop")
    return stops


def _token_ids(value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise RequestError(f"stop_token_ids must be token ids, not {value!r}", parameter="stop_token_ids")
    ids = tuple(value)
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise RequestError(f"stop_token_ids: {token!r} is not a token id", parameter="stop_token_ids")
    return ids
