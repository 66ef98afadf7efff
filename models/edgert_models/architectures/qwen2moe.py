"""Qwen1.5-MoE and Qwen2-MoE: biases of queries, keys and values; beside the routed experts a shared one with a gate.

Sources: transformers' `modeling_qwen2_moe`; llama.cpp's `models/qwen2moe.cpp` for the names in GGUF, where the shared
expert's gate is a vector.
"""

from __future__ import annotations

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    expert_names,
    pre_norm_decoder,
    shared_expert_names,
    stored,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, optional_windows, qwen_sparse_layers
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of Qwen2MoeForCausalLM; where it has windows, every second layer up to `max_window_layers` has one."""
    last = c.integer("max_window_layers", default=28)
    biases = {"attention_bias": c.boolean("qkv_bias", True), "output_bias": False}
    return ModelSpec(
        architecture="qwen2moe",
        **{**decoder_sizes(c, RopeLayout.HALVES), **biases},
        **expert_sizes(c, "moe_intermediate_size", Router(normalize=c.boolean("norm_topk_prob"))),
        **qwen_sparse_layers(c),
        **optional_windows(c, lambda i: i % 2 == 0 and i < last),
        shared_feed_forward=c.integer("shared_expert_intermediate_size"),
        shared_gate=True,
    )


ARCHITECTURE = Architecture(
    name="qwen2moe",
    title="Qwen1.5-MoE, Qwen2-MoE",
    hf_classes=("Qwen2MoeForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names={
        **COMMON_NAMES,
        **expert_names("mlp"),
        **shared_expert_names("mlp.shared_expert"),
        **stored(ffn_gate_inp_shexp="model.layers.{i}.mlp.shared_expert_gate"),
    },
    rope_layout=RopeLayout.HALVES,
    router=Router(normalize=False),
    llama_cpp=LlamaCpp(own_output=True, as_wide=True, dense_layers="none", normalizes=False),
    notes="The shared expert's gate is a vector in F32; files that have it as a matrix of one row are read too. "
    "Dense layers (`mlp_only_layers`, `decoder_sparse_step`) and sliding windows (`use_sliding_window`) are honoured. "
    "llama.cpp attends to everything, never normalises the weights of experts (`norm_topk_prob`), and loads neither "
    "dense layers nor heads that are together not as wide as the model.",
)
