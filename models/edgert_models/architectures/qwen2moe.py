"""Qwen1.5-MoE and Qwen2-MoE: biases of queries, keys and values; beside the routed experts a shared one with a gate.

Sources: transformers' `modeling_qwen2_moe`; llama.cpp's `models/qwen2moe.cpp` for the names in GGUF, where the shared
expert's gate is a vector.
"""

from __future__ import annotations

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    attention,
    expert_names,
    feed_forward,
    gated_shared_expert,
    predict,
    stored,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes
from edgert_models.graph import Graph, Plan
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec

_MLP = "model.layers.{i}.mlp"


def config(c: Config) -> ModelSpec:
    """ModelSpec of Qwen2MoeForCausalLM; dense layers among the sparse ones and sliding windows are refused."""
    c.refuse_unless("decoder_sparse_step", (1,), default=1)
    c.refuse_unless("mlp_only_layers", ([],), default=[])
    c.refuse_unless("use_sliding_window", (False,), default=False)
    biases = {"attention_bias": c.boolean("qkv_bias", True), "output_bias": False}
    return ModelSpec(
        architecture="qwen2moe",
        **{**decoder_sizes(c, RopeLayout.HALVES), **biases},
        **expert_sizes(c, "moe_intermediate_size", normalize=c.boolean("norm_topk_prob")),
        shared_feed_forward=c.integer("shared_expert_intermediate_size"),
    )


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`, with a shared expert."""
    x = g.embed()
    for i in range(g.spec.layers):
        block = f"blk.{i}"
        y = g.rms_norm(x, f"{block}.attn_norm.weight")
        x = g.add(x, attention(g, y, block, window=None, rope=g.spec.rope))
        y = g.rms_norm(x, f"{block}.ffn_norm.weight")
        x = g.add(x, g.add(feed_forward(g, y, block), gated_shared_expert(g, y, block)))
    return predict(g, x)


ARCHITECTURE = Architecture(
    name="qwen2moe",
    title="Qwen1.5-MoE, Qwen2-MoE",
    hf_classes=("Qwen2MoeForCausalLM",),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **expert_names("mlp"),
        **stored(
            ffn_gate_shexp=f"{_MLP}.shared_expert.gate_proj",
            ffn_up_shexp=f"{_MLP}.shared_expert.up_proj",
            ffn_down_shexp=f"{_MLP}.shared_expert.down_proj",
            ffn_gate_inp_shexp=f"{_MLP}.shared_expert_gate",
        ),
    },
    rope_layout=RopeLayout.HALVES,
    normalize_experts=False,
    notes="The shared expert's gate is a vector in F32; files that have it as a matrix of one row are read too. Dense"
    " layers among the sparse ones (`mlp_only_layers`, `decoder_sparse_step`) and sliding windows are refused. "
    "llama.cpp never normalises the weights of experts (`norm_topk_prob`), and does not load heads that are "
    "together not as wide as the model.",
)
