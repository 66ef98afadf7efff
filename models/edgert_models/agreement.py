"""Whether a model does what its config says of it, also where its family does not read that.

`transformers` passes over what a class does not know; a config that says it was written for something else, so a
ModelSpec that does not do it is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgert_models.errors import UnsupportedError
from edgert_models.spec import ModelSpec

_KINDS: Mapping[str, Callable[[ModelSpec, int], bool]] = {
    **dict.fromkeys(("full_attention", "attention"), lambda s, i: s.attends(i) and not _sees_less(s, i)),
    "sliding_attention": lambda s, i: s.attends(i) and not s.chunked and (s.window_of(i) is not None),
    "chunked_attention": lambda s, i: s.attends(i) and s.chunked and s.window_of(i) is not None,
    **dict.fromkeys(("linear_attention", "mamba", "conv"), ModelSpec.recurs),
    "hybrid": lambda s, i: s.recurs(i) and s.attends(i),
}
"""What `layer_types` may say of a layer."""
_NETWORKS: Mapping[str, Callable[[ModelSpec, int], bool]] = {
    "sparse": ModelSpec.has_experts,
    "dense": lambda s, i: not s.has_experts(i),
}
"""The same of `mlp_layer_types`."""
_SCORINGS = ("scoring_func", "score_func", "score_function", "scoring_function", "expert_selection_fn")
_CAPS = {"attn_logit_softcapping": "attention_cap", "final_logit_softcapping": "logits_cap", "clip_qkv": "clamp"}


def refuse_disagreement(c: Mapping[str, Any], spec: ModelSpec) -> None:
    """Raise UnsupportedError if a config says something of layers, of the router, or of limits that the model does not
    do. A text model within another has its config in `text_config`.
    """
    inner = c.get("text_config")
    c = inner if isinstance(inner, Mapping) else c
    for key, known in (("layer_types", _KINDS), ("mlp_layer_types", _NETWORKS)):
        _refuse_other_layers(key, c.get(key), known, spec)
    scoring = spec.router.scoring
    for key in _SCORINGS if spec.experts else ():
        if c.get(key) not in (None, scoring):
            raise UnsupportedError(f"config.json: {key}={c[key]!r} is not supported; supported: {scoring!r}")
    method = c.get("topk_method")
    if spec.experts and method is not None and (method == "noaux_tc") is not spec.router.bias:
        raise UnsupportedError(f"config.json: topk_method={method!r} is not supported for this model")
    for key, field in _CAPS.items():
        if c.get(key) and getattr(spec.scales, field) is None:
            raise UnsupportedError(f"config.json: {key}={c[key]!r} is not supported; supported: None")


def _refuse_other_layers(
    key: str, kinds: object, known: Mapping[str, Callable[[ModelSpec, int], bool]], spec: ModelSpec
) -> None:
    if kinds is None:
        return
    if not isinstance(kinds, list) or len(kinds) != spec.layers:
        raise UnsupportedError(f"config.json: {key} must say something of each of {spec.layers} layers, not {kinds}")
    for i, kind in enumerate(kinds):
        if kind not in known:
            raise UnsupportedError(f"config.json: {key}[{i}]={kind!r} is not supported; supported: {', '.join(known)}")
        if not known[kind](spec, i):
            raise UnsupportedError(f"config.json: {key}[{i}]={kind!r} is not supported for a {spec.architecture} model")


def _sees_less(spec: ModelSpec, layer: int) -> bool:
    """Whether a layer has a window that is shorter than the context."""
    return (spec.window_of(layer) or spec.context) < spec.context
