"""Flint: Qwen3-MoE with sinks, windows outside of which nothing is rotated, experts by sigmoids, and a shared expert.

The name in GGUF is ours, as llama.cpp has no such architecture. Source: transformers' `modeling_flint`.
"""

from __future__ import annotations

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    expert_names,
    pre_norm_decoder,
    shared_expert_names,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, layer_count, qwen_sparse_layers, windows
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import Rope, RopeLayout
from edgert_models.router import Router
from edgert_models.sources import Stored
from edgert_models.spec import ModelSpec

ROUTER = Router(scoring="sigmoid")


def config(c: Config) -> ModelSpec:
    """ModelSpec of FlintForCausalLM."""
    last = layer_count(c) - 1
    kinds = ["full_attention" if i < 2 or i % 4 == 1 or i == last else "sliding_attention" for i in range(last + 1)]
    c = Config({"layer_types": kinds, "mlp_only_layers": [0, 1], **{k: v for k, v in c.items() if v is not None}})
    return ModelSpec(
        architecture="flint",
        **decoder_sizes(c, RopeLayout.HALVES),
        **windows(c, period=1),
        **expert_sizes(c, "moe_intermediate_size", Router(scoring="sigmoid", normalize=c.boolean("norm_topk_prob"))),
        **qwen_sparse_layers(c),
        shared_feed_forward=c.integer("shared_expert_intermediate_size"),
        qk_norm="head",
    )


def rope_of(spec: ModelSpec, layer: int) -> Rope | None:
    """The rope of a layer."""
    return spec.rope if spec.window_of(layer) else None


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`, with sinks."""
    return pre_norm_decoder(g, rope_of, sinks=True)


ARCHITECTURE = Architecture(
    name="flint",
    title="Flint",
    hf_classes=("FlintForCausalLM",),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **expert_names("mlp"),
        **shared_expert_names("mlp.shared_expert"),
        "attn_sinks.weight": Stored(("model.layers.{i}.self_attn.softmax_offset", "model.layers.{i}.self_attn.sinks")),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    router=ROUTER,
    llama_cpp=LlamaCpp(known=False),
    notes="The name in GGUF is ours: llama.cpp has no such architecture.",
)
