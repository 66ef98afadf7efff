"""Qwen3-MoE: grouped queries, each head of queries and keys normalised, experts in every layer or in some.

Source: transformers' `modeling_qwen3_moe`.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, expert_names, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes, expert_sizes, optional_windows, qwen_sparse_layers
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of Qwen3MoeForCausalLM; where it has windows, every layer has one."""
    return ModelSpec(
        architecture="qwen3moe",
        **decoder_sizes(c, RopeLayout.HALVES),
        **expert_sizes(c, "moe_intermediate_size", Router(normalize=c.boolean("norm_topk_prob"))),
        **qwen_sparse_layers(c),
        **optional_windows(c, lambda i: True),
        qk_norm="head",
    )


ARCHITECTURE = Architecture(
    name="qwen3moe",
    title="Qwen3-MoE",
    hf_classes=("Qwen3MoeForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names={**COMMON_NAMES, **expert_names("mlp")},
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    llama_cpp=LlamaCpp(output_bias=False, dense_layers="none", normalizes=True),
    notes="Dense layers (`mlp_only_layers`, `decoder_sparse_step`) and sliding windows (`use_sliding_window`) are "
    "honoured. llama.cpp attends to everything, always normalises the weights of experts (`norm_topk_prob: false` is "
    "ignored), and loads neither dense layers nor a bias of the attention output.",
)
