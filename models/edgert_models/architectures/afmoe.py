"""AFMoE (Trinity): norms before and after, a gate on what attention gives, windows in most layers and no positions in
the others; experts by sigmoids and a bias, beside shared ones.

Sources: transformers' `modeling_afmoe`; llama.cpp's `conversion/afmoe.py` and `models/afmoe.cpp`.
"""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    attention,
    embedded,
    expert_names,
    feed_forward,
    norm,
    predict,
    residual,
    shared_expert_names,
    stored,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, leading_dense_layers, windows
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID
from edgert_models.spec import ModelSpec, Scales

_LAYER = "model.layers.{i}"
_PERIOD = 4  # of the layers that see everything


def config(c: Config) -> ModelSpec:
    """ModelSpec of AfmoeForCausalLM; embeddings that are not scaled, and other ways to choose experts, are refused."""
    c.refuse_unless("mup_enabled", (True,), default=False)
    c.refuse_unless("score_func", ("sigmoid",), default="sigmoid")
    c.refuse_unless("n_group", (1,), default=1)
    router = replace(
        BIASED_SIGMOID, normalize=c.boolean("route_norm", True), scale=c.number("route_scale", default=1.0)
    )
    spec = ModelSpec(
        architecture="afmoe",
        **decoder_sizes(c, RopeLayout.HALVES),
        **windows(c, period=c.integer("global_attn_every_n_layers", default=_PERIOD)),
        **expert_sizes(c, "moe_intermediate_size", router),
        **leading_dense_layers(Config({"first_k_dense_replace": c.get("num_dense_layers"), **c}), default=1),
        shared_feed_forward=c.integer("moe_intermediate_size") * c.integer("num_shared_experts", default=2),
        qk_norm="head",
    )
    return settle(spec)


def settle(spec: ModelSpec) -> ModelSpec:
    """With scaled embeddings, of which files say nothing."""
    return replace(spec, scales=Scales(embedding=spec.width**0.5))


def wire(g: Graph) -> Plan:
    """The wiring of `sandwich_decoder`, with gates, and rope in layers with a window."""
    s = g.spec
    x = embedded(g)
    for i in range(s.layers):
        block, window = f"blk.{i}", s.window_of(i)
        y = norm(g, x, f"{block}.attn_norm")
        y = attention(g, y, block, window=window, rope=s.rope if window else None, gate_name=f"{block}.attn_gate")
        x = residual(g, x, norm(g, y, f"{block}.post_attention_norm"))
        y = feed_forward(g, norm(g, x, f"{block}.ffn_norm"), i)
        x = residual(g, x, norm(g, y, f"{block}.post_ffw_norm"))
    return predict(g, x)


ARCHITECTURE = Architecture(
    name="afmoe",
    title="AFMoE (Trinity)",
    hf_classes=("AfmoeForCausalLM",),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **stored(
            attn_gate=f"{_LAYER}.self_attn.gate_proj",
            post_attention_norm=f"{_LAYER}.post_attention_layernorm",
            ffn_norm=f"{_LAYER}.pre_mlp_layernorm",
            post_ffw_norm=f"{_LAYER}.post_mlp_layernorm",
        ),
        **expert_names("mlp", router="router.gate", bias="expert_bias"),
        **shared_expert_names(),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    router=BIASED_SIGMOID,
    window_period=_PERIOD,
    settle=settle,
    llama_cpp=LlamaCpp(output_bias=False, windows=True),
    notes="Embeddings that are not scaled (`mup_enabled: false`) are refused.",
)
