"""FlexOlmo: OLMo 2's decoder with OLMoE's experts. The name in GGUF is ours, as llama.cpp has no such architecture.

Source: transformers' `modeling_flex_olmo`.
"""

from __future__ import annotations

from edgert_models.architecture import POST_NORM_NAMES, Architecture, expert_names, post_norm_decoder
from edgert_models.config import Config, decoder_sizes, expert_sizes
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of FlexOlmoForCausalLM."""
    return ModelSpec(
        architecture="flexolmo",
        **decoder_sizes(Config({"rope_theta": 500000.0, **c}), RopeLayout.HALVES),
        **expert_sizes(c, "intermediate_size", Router(normalize=c.boolean("norm_topk_prob"))),
        qk_norm="all",
    )


ARCHITECTURE = Architecture(
    name="flexolmo",
    title="FlexOlmo",
    hf_classes=("FlexOlmoForCausalLM",),
    config=config,
    wire=post_norm_decoder,
    names={**POST_NORM_NAMES, **expert_names("mlp")},
    rope_layout=RopeLayout.HALVES,
    qk_norm="all",
    router=Router(normalize=False),
    llama_cpp=LlamaCpp(known=False),
    notes="The name in GGUF is ours: llama.cpp has no such architecture.",
)
