"""Laguna: attention with a softplus gate of each head or element, and windows in some layers, which have other heads
and another rope; experts by sigmoids and a bias, beside a shared one.

Sources: transformers' `modeling_laguna`; llama.cpp's `conversion/laguna.py` and `models/laguna.cpp`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    FileHabits,
    attention,
    expert_names,
    hybrid_decoder,
    shared_expert_names,
    stored,
)
from edgert_models.architectures.mellum import settle
from edgert_models.config import Config, decoder_sizes, expert_sizes, heads_by_window, layer_count, mlp_layers, windows
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID
from edgert_models.sources import Source, renamed
from edgert_models.spec import ModelSpec

_ROPE = {
    "full_attention": {"rope_theta": 500000.0, "partial_rotary_factor": 0.5},
    "sliding_attention": {"rope_theta": 10000.0},
}
"""Where a config says nothing."""
_PERIOD = 4  # of the layers that see everything, in files that do not say
_GATES = {True: True, "per-head": True, "per-element": False}


def config(c: Config) -> ModelSpec:
    """ModelSpec of LagunaForCausalLM; caps of router logits, weights on inputs, and heads that differ in layers of a
    kind are refused.
    """
    c.refuse_unless("moe_apply_router_weight_on_input", (False,), default=False)
    c.refuse_unless("moe_router_logit_softcapping", (0.0,), default=0.0)
    c.refuse_unless("gating", tuple(_GATES), default=True)
    layers = layer_count(c)
    c = Config(
        {
            **c,
            "mlp_layer_types": c.get("mlp_layer_types") or ["dense", *["sparse"] * (layers - 1)],
            "layer_types": c.get("layer_types") or ["full_attention"] * layers,
            "rope_parameters": c.get("rope_parameters") or _ROPE,
        }
    )
    router = replace(BIASED_SIGMOID, epsilon=0.0, scale=c.number("moe_routed_scaling_factor", default=1.0))
    sizes = {**decoder_sizes(c, RopeLayout.HALVES, partial=True), **windows(c, period=1)}
    return settle(
        ModelSpec(
            architecture="laguna",
            **{**sizes, **_heads(c, sizes.get("windowed") or (False,) * layers)},
            **expert_sizes(c, "moe_intermediate_size", router),
            **mlp_layers(c),
            shared_feed_forward=c.integer("shared_expert_intermediate_size"),
            qk_norm="head",
            head_gates=_GATES[c.get("gating") or True],
        )
    )


def _heads(c: Config, windowed: tuple[bool, ...]) -> dict[str, Any]:
    """The ModelSpec fields of heads, which the config may say of each layer."""
    key = "num_attention_heads_per_layer"
    found = c.get(key) or [c.integer("num_attention_heads")] * len(windowed)
    if not isinstance(found, list) or len(found) != len(windowed) or not all(isinstance(each, int) for each in found):
        raise UnsupportedError(f"config.json: {key} must be a list of a number for each layer, not {found!r}")
    heads, within = heads_by_window(f"config.json: {key}", found, windowed)
    return {"heads": heads, "window_heads": within}


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`, with gates."""

    def mix(g: Graph, x: Value, layer: int) -> Value:
        s, block = g.spec, f"blk.{layer}"
        kinds: dict[str, Any] = {"gate_name": f"{block}.attn_gate", "gate_kind": "softplus"}
        return attention(g, x, block, window=s.window_of(layer), rope=s.rope_of(layer), **kinds)

    return hybrid_decoder(g, mix)


def _both(names: dict[str, Source], official: str, ours: str) -> dict[str, Source]:
    """Tensors that official checkpoints call otherwise than `transformers` does."""
    return {
        name: renamed(source, lambda each: (*each, *(known.replace(ours, official) for known in each)))
        for name, source in names.items()
    }


ARCHITECTURE = Architecture(
    name="laguna",
    title="Laguna",
    hf_classes=("LagunaForCausalLM",),
    config=config,
    settle=settle,
    wire=wire,
    names={
        **COMMON_NAMES,
        **stored(attn_gate="model.layers.{i}.self_attn.g_proj"),
        **_both(expert_names("mlp"), "mlp.experts.e_score", "mlp.gate.e_score"),
        **_both(shared_expert_names(), "mlp.shared_expert.", "mlp.shared_experts."),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    router=replace(BIASED_SIGMOID, epsilon=0.0),
    window_period=_PERIOD,
    window_later=True,
    files=FileHabits(says_routing=True),
    llama_cpp=LlamaCpp(output_bias=False, windows=True),
    notes="Gates of heads or of elements; heads that differ in layers with a window. Caps of router logits are "
    "refused.",
)
