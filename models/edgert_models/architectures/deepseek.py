"""DeepSeek-MoE: Llama's attention; experts beside shared ones, after a dense layer.

Sources: the model's own `modeling_deepseek.py`; llama.cpp's `conversion/deepseek.py` and `models/deepseek.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    expert_names,
    pre_norm_decoder,
    shared_expert_names,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, leading_dense_layers
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of DeepseekForCausalLM; other ways to score experts, and dense layers in turns, are refused."""
    c.refuse_unless("scoring_func", ("softmax",), default="softmax")
    c.refuse_unless("moe_layer_freq", (1,), default=1)
    return ModelSpec(
        architecture="deepseek",
        **decoder_sizes(c, RopeLayout.INTERLEAVED),
        **expert_sizes(c, "moe_intermediate_size", Router(normalize=c.boolean("norm_topk_prob"))),
        **leading_dense_layers(c),
        shared_feed_forward=c.integer("moe_intermediate_size") * c.integer("n_shared_experts", default=0),
    )


ARCHITECTURE = Architecture(
    name="deepseek",
    title="DeepSeek-MoE",
    hf_classes=("DeepseekForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names={**COMMON_NAMES, **expert_names("mlp"), **shared_expert_names()},
    rope_layout=RopeLayout.INTERLEAVED,
    router=Router(normalize=False),
    llama_cpp=LlamaCpp(as_wide=True, output_bias=False, normalizes=False),
    notes="llama.cpp never normalises the weights of experts (`norm_topk_prob`), and loads neither a bias of the "
    "attention output nor heads that are together not as wide as the model.",
)
