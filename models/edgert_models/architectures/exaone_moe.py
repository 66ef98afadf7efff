"""K-EXAONE: windows in most layers, no positions in the others; experts by sigmoids and a bias, beside shared ones.

Sources: transformers' `modeling_exaone_moe`; llama.cpp's `conversion/exaone.py` and `models/exaone-moe.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    expert_names,
    pre_norm_decoder,
    shared_expert_names,
)
from edgert_models.architectures import exaone4, qwen3next
from edgert_models.config import Config, biased_sigmoid, decoder_sizes, expert_sizes, leading_dense_layers
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of ExaoneMoeForCausalLM."""
    return ModelSpec(
        architecture="exaone-moe",
        **{**decoder_sizes(c, RopeLayout.HALVES), "attention_bias": False, "output_bias": False},
        **exaone4.window_sizes(c),
        **expert_sizes(c, "moe_intermediate_size", biased_sigmoid(Config({"routed_scaling_factor": 2.5, **c}))),
        **leading_dense_layers(c, default=1),
        shared_feed_forward=c.integer("moe_intermediate_size") * c.integer("num_shared_experts", default=1),
        qk_norm="head",
    )


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`, with EXAONE-4's layers without positions."""
    return pre_norm_decoder(g, exaone4.rope_of)


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    return "" if spec.window else "it wants windows in exaone-moe"


ARCHITECTURE = Architecture(
    name="exaone-moe",
    title="K-EXAONE",
    hf_classes=("ExaoneMoeForCausalLM", "ExaoneMoEForCausalLM"),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **expert_names("mlp", bias="e_score_correction_bias"),
        **shared_expert_names(),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    router=BIASED_SIGMOID,
    window_period=exaone4.PERIOD,
    nextn=qwen3next.nextn(),
    left_out=("mtp.",),
    llama_cpp=LlamaCpp(own_output=True, rope_factors=True, windows=True, refuses=(llama_cpp_refuses,)),
    notes="Windows, and no rope in layers without one. "
    "llama.cpp does not load models without windows, and knows dense layers only before the first with experts.",
)
