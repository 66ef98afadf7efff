"""OLMoE: queries and keys normalised over their whole width, experts whose weights are not rescaled.

Source: transformers' `modeling_olmoe`.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, expert_names, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes, expert_sizes
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.spec import ModelSpec, Scales


def config(c: Config) -> ModelSpec:
    """ModelSpec of OlmoeForCausalLM."""
    return ModelSpec(
        architecture="olmoe",
        **decoder_sizes(c, RopeLayout.HALVES),
        **expert_sizes(c, "intermediate_size", Router(normalize=c.boolean("norm_topk_prob"))),
        qk_norm="all",
        scales=Scales(clamp=None if c.get("clip_qkv") is None else c.number("clip_qkv")),
    )


ARCHITECTURE = Architecture(
    name="olmoe",
    title="OLMoE",
    hf_classes=("OlmoeForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names={**COMMON_NAMES, **expert_names("mlp")},
    rope_layout=RopeLayout.HALVES,
    qk_norm="all",
    router=Router(normalize=False),
    notes="llama.cpp never normalises the weights of experts (`norm_topk_prob`), ignores `clip_qkv`, and loads neither "
    "grouped queries, nor heads that are together not as wide as the model, nor a bias of the attention output.",
)
