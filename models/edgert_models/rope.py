"""Rotary position embedding as a table: every scaling method ends in inverse frequencies and one magnitude.

Pair i of a head turns by the angle position · frequency[i] (radians), and cosine and sine are multiplied by
`magnitude`. Backends see only that table. Sources: RoFormer (arXiv 2104.09864), YaRN (arXiv 2309.00071), and the
formulas of transformers' `modeling_rope_utils` and of ggml's `rope_yarn`, which agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from edgert_models.errors import UnsupportedError


class RopeLayout(Enum):
    """Which elements of a head form pair i, of `dims` rotated elements."""

    INTERLEAVED = "interleaved"  # (2i, 2i+1): llama-architecture GGUF files
    HALVES = "halves"  # (i, i + dims/2): Hugging Face, GPT-NeoX


@dataclass(frozen=True, kw_only=True)
class Rope:
    """How positions rotate queries and keys.

    `base` is theta, `dims` the rotated elements of each head, `scaling` one of none, linear, yarn. `factor` stretches
    the context (linear, yarn). `attention_factor` multiplies the method's own magnitude. `truncate` rounds the pairs
    between which yarn interpolates outwards to whole ones. `log_multiplier` is of models whose scores of attention yarn
    scales as well (`score_factor`): where it is not 0, `attention_factor` is all of the magnitude. `factors` says that
    the file has a tensor `rope_freqs.weight` [dims/2] whose entries divide the frequencies (the llama3 method). With
    the scaling longrope it has two: `rope_factors_short.weight` for contexts within the original one,
    `rope_factors_long.weight` for others. `sections` count the pairs of each dimension where positions have several,
    which for text are one: they are only kept for other programs.
    """

    base: float = 10000.0
    dims: int
    layout: RopeLayout
    scaling: str = "none"
    factor: float = 1.0
    original_context: int = 0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    log_multiplier: float = 0.0
    factors: bool = False
    sections: tuple[int, ...] = ()

    @property
    def factor_weights(self) -> tuple[str, ...]:
        """The tensors whose entries divide the frequencies: none, one, or one for short and one for long contexts."""
        if self.scaling == "longrope":
            return ("rope_factors_short.weight", "rope_factors_long.weight")
        return ("rope_freqs.weight",) if self.factors else ()

    def frequencies(self) -> tuple[float, ...]:
        """Radians per position, for each of the dims/2 pairs."""
        plain = [self.base ** (-2.0 * i / self.dims) for i in range(self.dims // 2)]
        if self.scaling == "linear":
            return tuple(f / self.factor for f in plain)
        if self.scaling == "yarn":
            low, high = self._turns_to_pair(self.beta_fast), self._turns_to_pair(self.beta_slow)
            if self.truncate:
                low, high = math.floor(low), math.ceil(high)
            low, high = max(low, 0), min(high, self.dims - 1)
            ramps = [min(max((i - low) / max(high - low, 0.001), 0.0), 1.0) for i in range(len(plain))]
            return tuple(f / self.factor * ramp + f * (1.0 - ramp) for f, ramp in zip(plain, ramps, strict=True))
        return tuple(plain)

    def magnitude(self) -> float:
        """The factor on cosine and sine."""
        if self.scaling == "yarn" and not self.log_multiplier:
            return self.attention_factor * _yarn_magnitude(self.factor, 1.0)
        return self.attention_factor

    def score_factor(self) -> float:
        """The factor on scores of attention in models that scale these as well, of turned elements and of others.

        Source: llama.cpp's `models/deepseek2.cpp`, which knows no other way to say it.
        """
        return (self.magnitude() * _yarn_magnitude(self.factor, self.log_multiplier)) ** 2

    def unscaled(self) -> Rope:
        """The same for the context that the model was first trained on."""
        return replace(self, scaling="none", factor=1.0, attention_factor=1.0, log_multiplier=0.0)

    def _turns_to_pair(self, turns: float) -> float:
        """The (fractional) pair that turns this many times within the original context."""
        return self.dims * math.log(self.original_context / (turns * 2.0 * math.pi)) / (2.0 * math.log(self.base))


def _yarn_magnitude(factor: float, multiplier: float) -> float:
    """What yarn makes of a context that is stretched by a factor."""
    return 1.0 + 0.1 * multiplier * math.log(factor) if factor > 1.0 else 1.0


def with_scaled_scores(rope: Rope, config: Mapping[str, Any]) -> Rope:
    """The same for models whose scores are multiplied by yarn's magnitude for `mscale_all_dim`, squared, or by nothing
    where there is none. Source: `yarn_apply_mscale` in transformers' `modeling_deepseek_v2`.
    """
    if rope.scaling != "yarn" or rope.factor <= 1.0:
        return rope
    given = rope_parameters(config)
    every = _number(given, "mscale_all_dim") if given.get("mscale_all_dim") else 0.0
    magnitude, wanted = rope.magnitude(), _yarn_magnitude(rope.factor, every)
    multiplier = (wanted / magnitude - 1.0) / (0.1 * math.log(rope.factor))
    return replace(rope, attention_factor=magnitude, log_multiplier=multiplier) if multiplier else rope


def rope_parameters(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config says of rope, in all layers or in those without a window: `rope_parameters`, which early ones call
    `rope_scaling`.
    """
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise UnsupportedError(f"config.json: rope parameters must be an object, not {type(given).__name__}")
    whole = given.get("full_attention")
    return whole if isinstance(whole, Mapping) else given


def rope_from_config(
    config: Mapping[str, Any],
    head_size: int,
    layout: RopeLayout,
    *,
    yarn_truncate: bool = True,
    partial: bool = True,
) -> Rope:
    """Rope from a Hugging Face config: `rope_parameters` (transformers 5), or `rope_theta` beside `rope_scaling`.

    GGUF files do not say whether yarn truncates: it is the family's convention, and a config that differs is refused,
    as is a share of each head in families where that is not `partial`: `transformers` would rotate all of it.
    """
    given = rope_parameters(config)
    kind = str(given.get("rope_type", given.get("type", "default")))
    base = _number(given, "rope_theta", _number(config, "rope_theta", 10000.0))
    share = _number(given, "partial_rotary_factor", _number(config, "partial_rotary_factor", 1.0))
    if share != 1.0 and not partial:
        raise UnsupportedError(f"config.json: partial_rotary_factor={share} is not supported for this model")
    dims = int(head_size * share)
    if kind in _UNSCALED:
        return Rope(base=base, dims=dims, layout=layout)
    if kind not in ("linear", "yarn", "llama3", *_LONGROPE):
        known = "default, dynamic, linear, llama3, yarn, longrope"
        raise UnsupportedError(f"rope scaling '{kind}' is not supported; supported: {known}")
    context = int(_number(given, *_original_context(config)))
    if kind in _LONGROPE:
        for key in ("short_factor", "long_factor"):
            longrope_factors(config, key, dims=dims)
        return Rope(
            base=base,
            dims=dims,
            layout=layout,
            scaling="longrope",
            original_context=context,
            attention_factor=_longrope_magnitude(config, given, context),
        )
    factor = _number(given, "factor")
    if kind == "llama3":
        return Rope(base=base, dims=dims, layout=layout, original_context=context, factors=True)
    if kind == "linear":
        return Rope(base=base, dims=dims, layout=layout, scaling="linear", factor=factor)
    truncate = given.get("truncate") is not False
    if truncate is not yarn_truncate:
        found = "true" if truncate else "false"
        raise UnsupportedError(f"yarn rope scaling with truncate={found} is not supported for this model")
    usual = natural = _yarn_magnitude(factor, 1.0)
    if given.get("mscale") and given.get("mscale_all_dim"):
        scale, every = (_number(given, key) for key in ("mscale", "mscale_all_dim"))
        usual = _yarn_magnitude(factor, scale) / _yarn_magnitude(factor, every)
    return Rope(
        base=base,
        dims=dims,
        layout=layout,
        scaling="yarn",
        factor=factor,
        original_context=context,
        attention_factor=_number(given, "attention_factor", usual) / natural,
        beta_fast=_number(given, "beta_fast", 32.0),
        beta_slow=_number(given, "beta_slow", 1.0),
        truncate=truncate,
    )


_UNSCALED = ("default", "dynamic")  # the latter scales only beyond `max_position_embeddings`
_LONGROPE = ("longrope", "su")  # the latter as early Phi-3 checkpoints call it


def _original_context(config: Mapping[str, Any]) -> tuple[str, float]:
    """The name of what the model was first trained on, and where rope parameters do not have it."""
    key = "original_max_position_embeddings"
    return key, _number(config, key, _number(config, "max_position_embeddings"))


def _longrope_magnitude(config: Mapping[str, Any], given: Mapping[str, Any], context: int) -> float:
    """Of LongRoPE (arXiv 2402.13753), as transformers computes it: √(1 + ln factor / ln original context)."""
    factor = _number(given, "factor", _number(config, "max_position_embeddings") / context)
    return _number(given, "attention_factor", math.sqrt(1.0 + math.log(max(factor, 1.0)) / math.log(context)))


def longrope_factors(config: Mapping[str, Any], key: str, *, dims: int) -> list[float]:
    """`short_factor` or `long_factor` [dims/2] of a checkpoint: what divides each frequency."""
    factors = rope_parameters(config).get(key)
    if not isinstance(factors, list) or len(factors) != dims // 2:
        raise UnsupportedError(f"config.json: rope parameter {key} must be a list of {dims // 2} numbers")
    return [_number({key: factor}, key) for factor in factors]


def rope_factors(config: Mapping[str, Any], key: str | None, rope: Rope) -> list[float]:
    """The tensor [dims/2] that a checkpoint's config has under `key`, or as `llama3_factors`."""
    if key == PROPORTIONAL:
        return proportional_factors(config, dims=rope.dims)
    return llama3_factors(config, rope) if key is None else longrope_factors(config, key, dims=rope.dims)


PROPORTIONAL = "proportional"


def proportional_factors(config: Mapping[str, Any], *, dims: int) -> list[float]:
    """The same of Gemma 4: pairs beyond `partial_rotary_factor` have a factor that leaves them where they are, as
    llama.cpp's converter writes it.
    """
    given = config["rope_parameters"]["full_attention"]
    turned = int(_number(given, "partial_rotary_factor", 1.0) * dims // 2)
    return [1.0] * turned + [1e30] * (dims // 2 - turned)


def llama3_factors(config: Mapping[str, Any], rope: Rope) -> list[float]:
    """The tensor `rope_freqs.weight` [dims/2] of a llama3-scaled checkpoint: what divides each frequency of its rope.

    Waves longer than original/low_freq_factor are stretched by `factor`, those shorter than original/high_freq_factor
    stay, and the ones between are interpolated. Source: Llama 3.1's reference code and transformers.
    """
    given = rope_parameters(config)
    factor, low, high = (_number(given, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = _number(given, "original_max_position_embeddings", _number(config, "max_position_embeddings"))
    factors = []
    for i in range(rope.dims // 2):
        wave = 2.0 * math.pi * rope.base ** (2.0 * i / rope.dims)
        if wave < original / high:
            factors.append(1.0)
        elif wave > original / low:
            factors.append(factor)
        else:
            smooth = (original / wave - low) / (high - low)
            factors.append(1.0 / ((1.0 - smooth) / factor + smooth))
    return factors


def _number(entries: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = entries.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
        raise UnsupportedError(f"config.json: rope parameter {key} must be a positive number, not {value!r}")
    return float(value)
