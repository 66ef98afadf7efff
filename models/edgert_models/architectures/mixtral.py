"""Mixtral: Mistral's decoder with experts. In GGUF it is the llama architecture with an expert count.

Source: transformers' `modeling_mixtral`: the chosen experts' softmax weights are scaled to sum to one.
"""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architectures import llama
from edgert_models.config import Config, expert_sizes
from edgert_models.router import SOFTMAX
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of MixtralForCausalLM."""
    return replace(llama.config(c), **expert_sizes(c, "intermediate_size", SOFTMAX))


ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    title="Mixtral (llama with experts)",
    hf_classes=("MixtralForCausalLM",),
    config=config,
    notes="An expert a tensor, or all experts in one.",
)
