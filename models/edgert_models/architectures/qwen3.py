"""Qwen3: dense decoders whose queries and keys are normalised head by head. Source: transformers' `modeling_qwen3`."""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of Qwen3ForCausalLM; sliding windows are refused."""
    c.refuse_unless("use_sliding_window", (False,), default=False)
    return ModelSpec(architecture="qwen3", **decoder_sizes(c, RopeLayout.HALVES), qk_norm="head")


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
    notes="Sliding windows are refused. llama.cpp loads no bias of the attention output.",
)
