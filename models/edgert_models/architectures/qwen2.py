"""Qwen2 and Qwen2.5: dense decoders with biases of queries, keys and values. Source: transformers' `modeling_qwen2`."""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes, qwen_windows
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of Qwen2ForCausalLM."""
    sizes = {**decoder_sizes(c, RopeLayout.HALVES), **qwen_windows(c)}
    return ModelSpec(architecture="qwen2", **{**sizes, "attention_bias": True, "output_bias": False})


ARCHITECTURE = Architecture(
    name="qwen2",
    title="Qwen2, Qwen2.5",
    hf_classes=("Qwen2ForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names=COMMON_NAMES,
    rope_layout=RopeLayout.HALVES,
    notes="Sliding windows (`use_sliding_window`) are honoured; llama.cpp attends to everything.",
)
