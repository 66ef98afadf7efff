"""A.X-K1: DeepSeek-V3 with a norm of what mixtures of experts give.

Source: transformers' `modeling_axk1`. llama.cpp has no such architecture: its name in GGUF is ours.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from edgert_models.architecture import Architecture, stored
from edgert_models.architectures import deepseek2
from edgert_models.config import Config
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of AXK1ForCausalLM."""
    return replace(deepseek2.config(c), architecture="axk1")


ARCHITECTURE = Architecture(
    name="axk1",
    title="A.X-K1",
    hf_classes=("AXK1ForCausalLM",),
    config=config,
    wire=partial(deepseek2.wire, mixture_norm="post_ffw_norm"),
    names={
        **deepseek2.ARCHITECTURE.names,
        **stored(post_ffw_norm="model.layers.{i}.post_mlp_layernorm"),
    },
    rope_layout=RopeLayout.INTERLEAVED,
    checkpoint_layout=RopeLayout.INTERLEAVED,
    router=deepseek2.ARCHITECTURE.router,
    scales_scores=True,
    settle=deepseek2.settle,
    nextn=deepseek2.ARCHITECTURE.nextn,
    llama_cpp=LlamaCpp(known=False),
    notes="DeepSeek-V3 with a norm of what experts give. The name in GGUF is ours: llama.cpp has no such architecture.",
)
