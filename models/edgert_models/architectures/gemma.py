"""Gemma: embeddings scaled by the root of the width, gates with GELU, norms stored as what they differ by from one.

Sources: transformers' `modeling_gemma`; llama.cpp's `conversion/gemma.py` and `models/gemma.cpp`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder, zero_centred
from edgert_models.config import Config, decoder_sizes
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec


def gemma_sizes(c: Config) -> dict[str, Any]:
    """The ModelSpec fields that all generations of Gemma name alike."""
    c = Config({"tie_word_embeddings": True, **c, "head_dim": c.integer("head_dim", default=256)})
    return {**decoder_sizes(c, RopeLayout.HALVES), "activation": "gelu"}


def with_scaled_embedding(spec: ModelSpec) -> ModelSpec:
    """The spec with the factor on embeddings, which GGUF files leave unsaid."""
    return replace(spec, scales=replace(spec.scales, embedding=math.sqrt(spec.width)))


def config(c: Config) -> ModelSpec:
    """ModelSpec of GemmaForCausalLM."""
    return with_scaled_embedding(ModelSpec(architecture="gemma", **gemma_sizes(c)))


ARCHITECTURE = Architecture(
    name="gemma",
    title="Gemma",
    hf_classes=("GemmaForCausalLM",),
    config=config,
    settle=with_scaled_embedding,
    wire=pre_norm_decoder,
    names=zero_centred(COMMON_NAMES),
    rope_layout=RopeLayout.HALVES,
    activation="gelu",
    llama_cpp=LlamaCpp(always_tied=True, output_bias=False),
    notes="llama.cpp loads neither an output matrix nor a bias of the attention output.",
)
