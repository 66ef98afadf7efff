"""Mistral Small 4: DeepSeek-V3 with a softmax router, and queries that the position scales.

Sources: transformers' `modeling_mistral4`; llama.cpp's `conversion/mistral3.py` and `models/mistral4.cpp`.
"""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architecture import Architecture
from edgert_models.architectures import deepseek2
from edgert_models.config import Config
from edgert_models.rope import RopeLayout, rope_parameters
from edgert_models.spec import ModelSpec, Scales


def config(c: Config) -> ModelSpec:
    """ModelSpec of Mistral4ForCausalLM, in whose rope parameters the share of a head is that of a whole key."""
    given = Config(rope_parameters(c))
    spec = deepseek2.config(Config({**c, "rope_parameters": {**given, "partial_rotary_factor": 1.0}}))
    strength = given.number("llama_4_scaling_beta", default=0.0)
    length = given.integer("original_max_position_embeddings") if strength else None
    return replace(spec, architecture="mistral4", scales=Scales(queries=strength or None, queries_length=length))


ARCHITECTURE = Architecture(
    name="mistral4",
    title="Mistral Small 4",
    hf_classes=("Mistral4ForCausalLM",),
    config=config,
    wire=deepseek2.wire,
    names=deepseek2.ARCHITECTURE.names,
    rope_layout=RopeLayout.INTERLEAVED,
    checkpoint_layout=RopeLayout.INTERLEAVED,
    scales_scores=True,
    nextn=deepseek2.ARCHITECTURE.nextn,
    llama_cpp=deepseek2.ARCHITECTURE.llama_cpp,
    notes="As DeepSeek-V3, with a softmax router; queries beyond the context that it was first trained on are scaled.",
)
