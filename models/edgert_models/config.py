"""Reading a Hugging Face `config.json`: typed, and refusing by name what a model file does not say it supports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgert_models.errors import UnsupportedError
from edgert_models.rope import RopeLayout, rope_from_config
from edgert_models.router import BIASED_SIGMOID, Router
from edgert_models.spec import MAX_LAYERS

_REQUIRED = object()
_ACTIVATIONS = {"silu": ("silu", "swish"), "gelu": ("gelu_pytorch_tanh", "gelu_new", "gelu_fast"), "relu": ("relu",)}
_WINDOWED, _FULL = "sliding_attention", "full_attention"


class Config(Mapping[str, Any]):
    """The mapping of config.json with getters that check type; UnsupportedError names a missing or odd entry."""

    def __init__(self, entries: Mapping[str, Any]) -> None:
        self._entries = entries

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def integer(self, *keys: str, default: Any = _REQUIRED) -> int:
        """The first of `keys` that is present and not null, as an integer."""
        value = self._first(keys, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise UnsupportedError(f"config.json: {keys[0]} must be an integer, not {value!r}")
        return value

    def number(self, *keys: str, default: Any = _REQUIRED) -> float:
        """The first of `keys` that is present and not null, as a float."""
        value = self._first(keys, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnsupportedError(f"config.json: {keys[0]} must be a number, not {value!r}")
        return float(value)

    def positive(self, *keys: str, default: Any = _REQUIRED) -> float:
        """The same, above zero."""
        value = self.number(*keys, default=default)
        if not value > 0.0:
            raise UnsupportedError(f"config.json: {keys[0]} must be above zero, not {value!r}")
        return value

    def boolean(self, key: str, default: bool = False) -> bool:
        """`key` as true or false; null counts as `default`."""
        value = self._first((key,), default)
        if not isinstance(value, bool):
            raise UnsupportedError(f"config.json: {key} must be true or false, not {value!r}")
        return value

    def refuse_unless(self, key: str, allowed: tuple[Any, ...], *, default: Any) -> None:
        """Raise UnsupportedError if `key` is present with a value that is not in `allowed`."""
        value = self._first((key,), default)
        if value not in allowed:
            raise UnsupportedError(f"config.json: {key}={value!r} is not supported; supported: {allowed[0]!r}")

    def refuse_other_activations(self, activation: str, others: tuple[str, ...] = ()) -> None:
        """Raise UnsupportedError if the activation of the feed-forward network is not `activation`, as ops name it, and
        is not called by one of `others` either.
        """
        for key in ("hidden_act", "hidden_activation"):
            self.refuse_unless(key, (*_ACTIVATIONS[activation], *others), default=_ACTIVATIONS[activation][0])

    def _first(self, keys: tuple[str, ...], default: Any) -> Any:
        for key in keys:
            if self._entries.get(key) is not None:
                return self._entries[key]
        if default is _REQUIRED:
            raise UnsupportedError(f"config.json: {' or '.join(keys)} is missing")
        return default


def decoder_sizes(
    c: Config, layout: RopeLayout, *, yarn_truncate: bool = True, partial: bool = False
) -> dict[str, Any]:
    """The ModelSpec fields that decoders of all families name alike in their configs; a `partial_rotary_factor` is
    refused in families that do not read it.
    """
    heads = c.integer("num_attention_heads")
    full, within = _ropes(c)
    head_size = c.integer("head_dim", default=c.integer("hidden_size") // max(heads, 1))
    return {
        "vocabulary": c.integer("vocab_size"),
        "context": c.integer("max_position_embeddings"),
        "width": c.integer("hidden_size"),
        "layers": c.integer("num_hidden_layers"),
        "heads": heads,
        "kv_heads": c.integer("num_key_value_heads", default=heads),
        "head_size": head_size,
        "rope": rope_from_config(full, head_size, layout, yarn_truncate=yarn_truncate, partial=partial),
        "window_rope": within and rope_from_config(within, head_size, layout, partial=partial),
        "norm_eps": c.number("rms_norm_eps", default=1e-6),
        "feed_forward": c.integer("intermediate_size", default=0),
        "tied": c.boolean("tie_word_embeddings"),
        "attention_bias": c.boolean("attention_bias"),
        "output_bias": c.boolean("attention_bias"),
    }


def _ropes(c: Config) -> tuple[Config, Config | None]:
    """The configs of rope, and of rope in layers with a window, where those have parameters of their own."""
    given = c.get("rope_parameters")
    if not isinstance(given, Mapping) or not isinstance(given.get(_FULL), Mapping):
        return c, None
    full, within = (Config({**c, "rope_parameters": given.get(kind) or {}}) for kind in (_FULL, _WINDOWED))
    kind = within["rope_parameters"].get("rope_type", "default")
    if kind != "default":
        raise UnsupportedError(f"config.json: rope in layers with a window must be unscaled, not '{kind}'")
    return full, within


def text_of(c: Config, activation: str) -> Config:
    """The part of a config that speaks of text, whose activation must be that."""
    inner = c.get("text_config")
    if inner is None:
        return c
    if not isinstance(inner, Mapping):
        raise UnsupportedError(f"config.json: text_config must be an object, not {type(inner).__name__}")
    tied = {"tie_word_embeddings": c.boolean("tie_word_embeddings")} if "tie_word_embeddings" in c else {}
    text = Config({**tied, **inner})
    text.refuse_other_activations(activation)
    return text


def windows(c: Config, *, period: int, kept: bool = False) -> dict[str, Any]:
    """The ModelSpec fields of a window for some layers: `layer_types` says which, else all but every `period`-th. There
    are none where no layer has it, unless it is `kept`: because the others have no positions.
    """
    layers = layer_count(c)
    if period < 1:
        raise UnsupportedError(f"config.json: every {period}th layer cannot be the one without a window")
    usual = [_WINDOWED if (i + 1) % period else _FULL for i in range(layers)]
    kinds = c.get("layer_types") or usual
    if not isinstance(kinds, list) or len(kinds) != layers or not set(kinds) <= {_WINDOWED, _FULL}:
        raise UnsupportedError(f"config.json: layer_types must say {_WINDOWED} or {_FULL} of every layer, not {kinds}")
    if _WINDOWED not in kinds and not kept:
        return {}
    return {"window": c.integer("sliding_window"), "windowed": tuple(kind == _WINDOWED for kind in kinds)}


def optional_windows(c: Config, within: Callable[[int], bool]) -> dict[str, Any]:
    """The same where `use_sliding_window` says whether there are any: in layers that `layer_types` names, else in those
    that are `within`.
    """
    c = Config({"sliding_window": 4096, **c})
    if not c.boolean("use_sliding_window"):
        if _WINDOWED in (c.get("layer_types") or ()):
            raise UnsupportedError(f"config.json: layer_types says {_WINDOWED}, but use_sliding_window is not true")
        return {}
    used = c.get("sliding_window") is not None
    kinds = [_WINDOWED if used and within(i) else _FULL for i in range(layer_count(c))]
    return windows(Config({**c, "layer_types": c.get("layer_types") or kinds}), period=1)


def qwen_windows(c: Config) -> dict[str, Any]:
    """The same of Qwen2 and Qwen3: from `max_window_layers` on."""
    first = c.integer("max_window_layers", default=28)
    return optional_windows(c, lambda i: i >= first)


def heads_by_window(key: str, counts: Sequence[int], windowed: Sequence[bool]) -> tuple[int, int]:
    """Heads in layers without a window, and in those with one, 0 if that is the same, of the counts under `key` of all
    layers; UnsupportedError where layers of a kind differ.
    """
    pairs = list(zip(counts, windowed or [False] * len(counts), strict=True))
    within, others = ({count for count, flag in pairs if flag is kind} for kind in (True, False))
    if min(counts) <= 0 or len(within) > 1 or len(others) > 1:
        found = list(counts)
        raise UnsupportedError(f"{key} must be one number in layers with a window, and one in others, not {found}")
    heads = (others or within).pop()
    return heads, within.pop() if within - {heads} else 0


def layer_count(c: Config) -> int:
    """`num_hidden_layers`, or as many as may be: what says something of every layer is never longer."""
    return min(c.integer("num_hidden_layers"), MAX_LAYERS)


def mlp_layers(c: Config) -> dict[str, Any]:
    """The same by `mlp_layer_types`, which says dense or sparse of every layer."""
    layers = layer_count(c)
    kinds = c.get("mlp_layer_types") or ["sparse"] * layers
    if not isinstance(kinds, list) or len(kinds) != layers or not set(kinds) <= {"dense", "sparse"}:
        raise UnsupportedError(f"config.json: mlp_layer_types must say dense or sparse of every layer, not {kinds}")
    return sparse_layers(kind == "sparse" for kind in kinds)


def sparse_layers(flags: Iterable[bool]) -> dict[str, Any]:
    """The ModelSpec field that says which layers have experts."""
    sparse = tuple(flags)
    return {} if all(sparse) else {"sparse": sparse}


def qwen_sparse_layers(c: Config) -> dict[str, Any]:
    """The same by `decoder_sparse_step`, every so-manieth layer, and `mlp_only_layers`, which have no experts."""
    step, dense = c.integer("decoder_sparse_step", default=1), c.get("mlp_only_layers") or []
    if step < 1:
        raise UnsupportedError(f"config.json: decoder_sparse_step={step} is not supported; supported: 1 and more")
    if not isinstance(dense, list):
        raise UnsupportedError(f"config.json: mlp_only_layers must be a list, not {dense!r}")
    return sparse_layers((i + 1) % step == 0 and i not in dense for i in range(layer_count(c)))


def recurrent_layers(c: Config, recurrent: str) -> tuple[bool, ...]:
    """Of every layer, whether `layer_types` calls it `recurrent`; any other must be one of full attention."""
    kinds = c.get("layer_types")
    if not isinstance(kinds, list) or not set(kinds) <= {recurrent, _FULL}:
        raise UnsupportedError(f"config.json: layer_types must say {recurrent} or {_FULL} of every layer, not {kinds}")
    return tuple(kind == recurrent for kind in kinds)


def leading_dense_layers(c: Config, *, default: int = 0) -> dict[str, Any]:
    """The same by `mlp_layer_types`, or by `first_k_dense_replace`: the number of dense layers before those."""
    kinds, count = c.get("mlp_layer_types"), c.integer("first_k_dense_replace", default=default)
    if kinds is None:
        return sparse_layers(i >= count for i in range(layer_count(c)))
    if not isinstance(kinds, list) or len(kinds) != layer_count(c) or not set(kinds) <= {"dense", "sparse"}:
        raise UnsupportedError(f"config.json: mlp_layer_types must say dense or sparse of every layer, not {kinds}")
    return sparse_layers(kind == "sparse" for kind in kinds)


def biased_sigmoid(c: Config) -> Router:
    """The router of DeepSeek-V3, by the names of its config."""
    return replace(
        BIASED_SIGMOID,
        normalize=c.boolean("norm_topk_prob", True),
        scale=c.number("routed_scaling_factor", default=1.0),
        groups=c.integer("n_group", default=1),
        groups_used=c.integer("topk_group", default=1),
    )


def expert_sizes(c: Config, feed_forward: str, router: Router) -> dict[str, Any]:
    """The ModelSpec fields of experts; `feed_forward` is the config's name for an expert's width."""
    return {
        "experts": c.integer("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
        "experts_used": c.integer("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts"),
        "expert_feed_forward": c.integer(feed_forward),
        "router": router,
    }
