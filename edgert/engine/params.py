"""What a caller may ask of sampling."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from edgert_models.errors import RequestError

from edgert.engine.overflow import OVERFLOWS
from edgert.engine.structured import StructuredOutputs

MAX_LOGPROBS = 20
FALLBACKS: Mapping[str, float] = MappingProxyType(
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.0, "repeat_last_n": 64}
)
"""llama.cpp's defaults (`common_params_sampling`): what holds where neither the caller nor the model says otherwise."""
SAMPLERS = ("penalties", "dry", "top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature")
"""What is done unless `samplers` says otherwise, in llama.cpp's default order."""
ALL_SAMPLERS = (*SAMPLERS, "infill")
MAX_BREAKER = 40
INTEGERS: Mapping[str, tuple[int, int | None]] = MappingProxyType(
    {
        "max_tokens": (1, None),
        "min_tokens": (0, None),
        "top_k": (0, None),
        "repeat_last_n": (-1, None),
        "dry_allowed_length": (0, None),
        "dry_penalty_last_n": (-1, None),
        "mirostat": (0, 2),
        "seed": (0, 2**64 - 1),
        "logprobs": (0, MAX_LOGPROBS),
        "min_indent": (0, None),
    }
)
"""The least and, where there is one, the greatest value of the fields that are integers."""
NUMBERS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "temperature": (0.0, 100.0),
        "dynatemp_range": (0.0, 100.0),
        "dynatemp_exponent": (0.0, 100.0),
        "top_n_sigma": (-1.0, 100.0),
        "top_p": (0.0, 1.0),
        "min_p": (0.0, 1.0),
        "typical_p": (0.0, 1.0),
        "repetition_penalty": (1e-3, 1e3),
        "frequency_penalty": (-2.0, 2.0),
        "presence_penalty": (-2.0, 2.0),
        "dry_multiplier": (0.0, 100.0),
        "dry_base": (1.0, 100.0),
        "xtc_probability": (0.0, 1.0),
        "xtc_threshold": (0.0, 1.0),
        "mirostat_tau": (0.0, 100.0),
        "mirostat_eta": (0.0, 1.0),
        "timeout": (1e-3, 1e6),
        "line_seconds": (0.0, 1e6),
    }
)
"""The least and the greatest value of the fields that are numbers."""
_ALIASES = {"typ_p": "typical_p", "typical": "typical_p", "temp": "temperature"}  # llama.cpp's names


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen and when to stop. RequestError names the parameter that is out of range.

    Where a field says "model", None means what the model file recommends (`general.sampling.*`), or else llama.cpp's
    default, given in brackets. `logit_bias` and what may not come (`ignore_eos`, `min_tokens`) are first, then come the
    steps that `samplers` names. With `temperature` 0 the most likely token after bias, penalties, DRY and "infill" is
    taken (the lowest id of equals) and the other steps do not matter.
    """

    max_tokens: int | None = None
    """Tokens to generate at most, from 1. None: until the model stops or the context is full."""
    min_tokens: int = 0
    """Tokens before which neither the model's own end tokens nor `stop_token_ids` are chosen."""
    samplers: Sequence[str] = SAMPLERS
    """The steps in their order, each at most once; what is not named is not done. llama.cpp's names are fine too.
    "infill", after "top_k", is for text between two others: it ends rather than ramble (see `sampling.infill`)."""
    temperature: float | None = None
    """0 to 100: greedy at 0. None: model [0.8]."""
    dynatemp_range: float = 0.0
    """Dynamic temperature: from `temperature` minus this (not below 0) where the model is sure to plus this where it is
    not; 0 to 100, 0: off."""
    dynatemp_exponent: float = 1.0
    """How its entropy, as a share of the largest possible, becomes a place in that range; 0 to 100."""
    top_n_sigma: float = 0.0
    """Keep logits at most so many standard deviations below the largest; up to 100, 0 or -1: all."""
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
    """How many of the last tokens, prompt included, the penalties (not DRY) look at; 0: none, -1: all. None: model
    [64]."""
    frequency_penalty: float = 0.0
    """Subtracted from a logit for each time the token was seen lately; -2 to 2."""
    presence_penalty: float = 0.0
    """Subtracted from a logit if the token was seen lately; -2 to 2."""
    dry_multiplier: float = 0.0
    """DRY: a token that would make a repeat of n tokens longer loses multiplier * base^(n - allowed length); 0 to 100,
    0: off."""
    dry_base: float = 1.75
    """1 to 100."""
    dry_allowed_length: int = 2
    """Repeats shorter than this cost nothing."""
    dry_penalty_last_n: int = -1
    """How many of the last tokens, prompt included, DRY looks at; 0: none, -1: all."""
    dry_sequence_breakers: Sequence[str] = ("\n", ":", '"', "*")
    """Texts of 1 to 40 characters that no repeat goes beyond; kept as a tuple. Seen by `LLM`, not by the engine."""
    xtc_probability: float = 0.0
    """How often XTC takes away the tokens that are at least as likely as `xtc_threshold`, but the least likely of them;
    0 to 1, 0: never."""
    xtc_threshold: float = 0.1
    """0 to 1; above 0.5: off."""
    mirostat: int = 0
    """1 or 2: mirostat of that version in place of all steps but penalties, DRY and a fixed temperature; 0: off."""
    mirostat_tau: float = 5.0
    """The surprise to aim at, in bits; 0 to 100."""
    mirostat_eta: float = 0.1
    """How fast mirostat adapts; 0 to 1."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits, by token id; -100 to 100."""
    seed: int | None = None
    """0 to 2^64 - 1. The same seed gives the same tokens, whatever else runs. None: the model's, or a fresh one."""
    stop: str | Sequence[str] = ()
    """Texts that end the answer and are not part of it; kept as a tuple. Seen by `LLM`, not by the engine."""
    min_indent: int = 0
    """The answer ends (finish reason "length") before a line, after its first, that does not begin with so many spaces
    or tabs. Seen by `LLM`, not by the engine."""
    line_seconds: float | None = None
    """Seconds from the first token on, after which the answer ends with the line (finish reason "length"): None, never.
    Seen by `LLM`, not by the engine."""
    stop_token_ids: Sequence[int] = ()
    """Tokens that end the answer, besides the model's own; kept as a tuple."""
    logprobs: int | None = None
    """0 to 20: report the log-probability of each token and of as many likeliest ones. They are of the model's own
    distribution, before bias, penalties, temperature and the rest. None: do not report."""
    structured_outputs: StructuredOutputs | None = None
    """The form that the answer has to have (a JSON schema, a regular expression, …). Seen by `LLM`, not by the engine.
    It comes before everything else: with it, a token that ends the answer comes only where the answer is whole, and
    where nothing more may come the answer ends, whatever `ignore_eos` and `min_tokens` say."""
    ignore_eos: bool = False
    """Never choose the model's own end tokens (as llama.cpp: their logits become minus infinity)."""
    timeout: float | None = None
    """Seconds from the request on, waiting included, after which it ends with DeadlineError. None, or more than that:
    the model's."""
    overflow: str | None = None
    """What becomes of more tokens than the context holds: "error", "truncate-middle" or "sliding" (see `Overflow`).
    None: the model's."""

    def __post_init__(self) -> None:
        for name, (low, high) in INTEGERS.items():
            _integer(name, getattr(self, name), low, high)
        for name, limits in NUMBERS.items():
            _number(name, getattr(self, name), *limits)
        for each in fields(self):
            if getattr(self, each.name) is None and each.default is not None:
                raise RequestError(f"{each.name} must have a value, not None", parameter=each.name)
        if not isinstance(self.ignore_eos, bool):
            raise RequestError(f"ignore_eos must be true or false, not {self.ignore_eos!r}", parameter="ignore_eos")
        if self.overflow is not None and self.overflow not in OVERFLOWS:
            reason = f"overflow must be one of {', '.join(OVERFLOWS)}, not {self.overflow!r}"
            raise RequestError(reason, parameter="overflow")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            reason = f"min_tokens is {self.min_tokens}, above max_tokens, which is {self.max_tokens}"
            raise RequestError(reason, parameter="min_tokens")
        if not isinstance(self.structured_outputs, StructuredOutputs | None):
            reason = f"structured_outputs must be StructuredOutputs, not {type(self.structured_outputs).__name__}"
            raise RequestError(reason, parameter="structured_outputs")
        object.__setattr__(self, "samplers", _samplers(self.samplers))
        object.__setattr__(self, "dry_sequence_breakers", _breakers(self.dry_sequence_breakers))
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))
        object.__setattr__(self, "stop", _texts("stop", self.stop))
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


def _samplers(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise RequestError(f"samplers must be names of samplers, not {value!r}", parameter="samplers")
    names = tuple(_ALIASES.get(name, name) if isinstance(name, str) else name for name in value)
    for place, name in enumerate(names):
        if name not in ALL_SAMPLERS:
            raise RequestError(f"samplers: {name!r} is none of {', '.join(ALL_SAMPLERS)}", parameter="samplers")
        if name in names[:place]:
            raise RequestError(f"samplers: {name} is there twice", parameter="samplers")
    return names


def _breakers(value: Any) -> tuple[str, ...]:
    texts = _texts("dry_sequence_breakers", value)
    for text in texts:
        if len(text) > MAX_BREAKER:
            reason = f"dry_sequence_breakers: {text!r} has more than {MAX_BREAKER} characters"
            raise RequestError(reason, parameter="dry_sequence_breakers")
    return texts


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if value is None or not isinstance(value, Iterable):
        raise RequestError(f"{name} must be a text or several, not {value!r}", parameter=name)
    texts = (value,) if isinstance(value, str) else tuple(value)
    for text in texts:
        if not isinstance(text, str) or not text:
            raise RequestError(f"{name}: {text!r} is not a text of at least one character", parameter=name)
    return texts


def _token_ids(value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise RequestError(f"stop_token_ids must be token ids, not {value!r}", parameter="stop_token_ids")
    ids = tuple(value)
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise RequestError(f"stop_token_ids: {token!r} is not a token id", parameter="stop_token_ids")
    return ids
