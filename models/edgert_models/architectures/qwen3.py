"""Qwen3: dense decoders whose queries and keys are normalised head by head. Source: transformers' `modeling_qwen3`."""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes, qwen_windows
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of Qwen3ForCausalLM."""
    return ModelSpec(architecture="qwen3", **decoder_sizes(c, RopeLayout.HALVES), **qwen_windows(c), qk_norm="head")


ARCHITECTURE = Architecture(
    name="qwen3",
    title="Qwen3",
    hf_classes=("Qwen3ForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names=COMMON_NAMES,
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    llama_cpp=LlamaCpp(output_bias=False),
    notes="Sliding windows (`use_sliding_window`) are honoured; llama.cpp attends to everything, and loads no bias of "
    "the attention output.",
)
