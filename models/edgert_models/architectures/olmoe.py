"""OLMoE: queries and keys normalised over their whole width, experts whose weights are not rescaled.

Source: transformers' `modeling_olmoe`.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, expert_names, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes, expert_sizes
from edgert_models.llama_cpp import LlamaCpp
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


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    fits = spec.kv_heads == spec.heads and spec.query_width == spec.width
    return "" if fits else "it wants as many key as query heads in olmoe, together as wide as the model"


def llama_cpp_differs(spec: ModelSpec) -> str:
    """What llama.cpp computes otherwise."""
    return "llama.cpp does not clamp queries, keys and values in olmoe" if spec.scales.clamp else ""


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
    llama_cpp=LlamaCpp(
        own_output=True,
        output_bias=False,
        normalizes=False,
        refuses=(llama_cpp_refuses,),
        differs=(llama_cpp_differs,),
    ),
    notes="llama.cpp never normalises the weights of experts (`norm_topk_prob`), ignores `clip_qkv`, and loads neither "
    "grouped queries, nor heads that are together not as wide as the model, nor a bias of the attention output.",
)
