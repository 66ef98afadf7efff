"""Lara Mini: gated delta nets, attention within windows, and attention without positions, in turns; experts beside a
shared one in every layer.

The name in GGUF is ours, as llama.cpp has no such architecture; tensors are called as Qwen3.5's. Checkpoints have one
matrix for all that enters a delta net. Source: transformers' `modeling_lara_mini`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    attention,
    expert_names,
    hybrid_decoder,
    shared_expert_names,
)
from edgert_models.architectures.qwen3next import DELTA_NAMES
from edgert_models.config import Config, decoder_sizes, expert_sizes, layer_count
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.sources import Arranged, Order, Source, Stored
from edgert_models.spec import ModelSpec, Recurrence

_KINDS = ("linear_attention", "sliding_attention", "linear_attention", "full_attention", "sliding_attention")
_NET = "model.layers.{i}.linear_attn"


def config(c: Config) -> ModelSpec:
    """ModelSpec of LaraMiniForCausalLM."""
    layers = layer_count(c)
    kinds = c.get("layer_types") or [_KINDS[i % len(_KINDS)] for i in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or not set(kinds) <= set(_KINDS):
        raise UnsupportedError(
            f"config.json: layer_types must say {', '.join(_KINDS[1:4])} of every layer, not {kinds}"
        )
    heads = c.integer("linear_num_value_heads", default=16)
    recurrence = Recurrence(
        layers=tuple(kind == "linear_attention" for kind in kinds),
        kernel=c.integer("linear_conv_kernel_dim", default=4),
        inner=heads * c.integer("linear_value_head_dim", default=128),
        state=c.integer("linear_key_head_dim", default=128),
        heads=heads,
        groups=c.integer("linear_num_key_heads", default=8),
    )
    windowed = tuple(kind == "sliding_attention" for kind in kinds)
    sizes: dict[str, Any] = {**decoder_sizes(_whole_heads(c), RopeLayout.HALVES), "feed_forward": 0}
    if any(windowed):
        sizes |= {"window": c.integer("sliding_window", default=512), "windowed": windowed}
    return ModelSpec(
        architecture="lara_mini",
        **sizes,
        **expert_sizes(c, "moe_intermediate_size", Router(normalize=c.boolean("norm_topk_prob", True))),
        shared_feed_forward=c.integer("shared_expert_intermediate_size"),
        qk_norm="head",
        recurrence=recurrence if any(recurrence.layers) else None,
    )


def _whole_heads(c: Config) -> Config:
    """Without the part of heads that Qwen3-Next turns."""
    given = c.get("rope_parameters")
    changes = {"rope_parameters": {**given, "partial_rotary_factor": 1.0}} if isinstance(given, dict) else {}
    return Config({"head_dim": 128, **c, "partial_rotary_factor": 1.0, **changes})


def mix(g: Graph, x: Value, layer: int) -> Value:
    """Attention, with rope within windows, or a delta net, normalised and gated head by head."""
    s, r, block, window = g.spec, g.spec.recurrence, f"blk.{layer}", g.spec.window_of(layer)
    if r is None or not s.recurs(layer):
        within = window if s.windowed else None
        return attention(g, x, block, window=within, rope=s.rope if within else None)
    y = g.linear(x, f"{block}.attn_qkv", 2 * r.groups * r.state + r.inner)
    y = g.short_conv(y, f"{block}.ssm_conv1d", r.kernel, silu=True)
    b, a = (g.linear(x, f"{block}.ssm_{name}", r.heads) for name in ("beta", "alpha"))
    y = g.rms_norm(g.delta_rule(y, a, b, block), f"{block}.ssm_norm.weight", groups=r.heads)
    return g.linear(g.gated(g.linear(x, f"{block}.attn_gate", r.inner), y), f"{block}.ssm_out", s.width)


def wire(g: Graph) -> Plan:
    """The wiring of `hybrid_decoder` with delta nets."""
    return hybrid_decoder(g, mix)


def _part(number: int) -> Source:
    """Of queries, keys and values; gates; b; a, one after another."""
    return Arranged((f"{_NET}.in_proj.weight",), _stretch(number))


def _stretch(number: int) -> Callable[[ModelSpec], Order]:
    def order(s: ModelSpec) -> Order:
        r = s.recurrence
        assert r is not None
        sizes = (2 * r.groups * r.state + r.inner, r.inner, r.heads, r.heads)
        start = sum(sizes[:number])
        return Order(tuple(range(start, start + sizes[number])), sum(sizes))

    return order


ARCHITECTURE = Architecture(
    name="lara_mini",
    title="Lara Mini",
    hf_classes=("LaraMiniForCausalLM",),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **expert_names("mlp"),
        **shared_expert_names("mlp.shared_expert"),
        **DELTA_NAMES,
        **{f"{name}.weight": _part(i) for i, name in enumerate(("attn_qkv", "attn_gate", "ssm_beta", "ssm_alpha"))},
        "ssm_norm.weight": Stored((f"{_NET}.out_norm.weight",)),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    llama_cpp=LlamaCpp(known=False),
    notes="Delta nets, windows, and no rope outside of them. The name in GGUF is ours: llama.cpp has no such "
    "architecture.",
)
