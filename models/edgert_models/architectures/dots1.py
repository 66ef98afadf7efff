"""dots.llm1: Qwen3's attention; experts chosen by sigmoids and a bias, beside shared ones.

Sources: transformers' `modeling_dots1`; llama.cpp's `conversion/dots1.py` and `models/dots1.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    expert_names,
    pre_norm_decoder,
    shared_expert_names,
)
from edgert_models.config import (
    Config,
    biased_sigmoid,
    decoder_sizes,
    expert_sizes,
    leading_dense_layers,
    optional_windows,
)
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of Dots1ForCausalLM."""
    first = c.integer("max_window_layers", default=62)
    return ModelSpec(
        architecture="dots1",
        **decoder_sizes(c, RopeLayout.HALVES),
        **expert_sizes(c, "moe_intermediate_size", biased_sigmoid(Config({"norm_topk_prob": False, **c}))),
        **leading_dense_layers(c),
        **optional_windows(Config({"use_sliding_window": True, **c}), lambda i: i >= first),
        shared_feed_forward=c.integer("moe_intermediate_size") * c.integer("n_shared_experts"),
        qk_norm="head",
    )


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    return "it wants as many key as query heads in dots1" if spec.kv_heads != spec.heads else ""


ARCHITECTURE = Architecture(
    name="dots1",
    title="dots.llm1",
    hf_classes=("Dots1ForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names={**COMMON_NAMES, **expert_names("mlp"), **shared_expert_names()},
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    router=BIASED_SIGMOID,
    llama_cpp=LlamaCpp(own_output=True, output_bias=False, refuses=(llama_cpp_refuses,)),
    notes="Sliding windows (`layer_types`) are honoured; llama.cpp attends to everything, wants as many key as query "
    "heads, and loads no bias of the attention output.",
)
