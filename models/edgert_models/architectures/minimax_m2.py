"""MiniMax-M2: queries and keys normalised over all heads, a part of each rotated, experts by sigmoids and a bias.

Sources: transformers' `modeling_minimax_m2`; llama.cpp's `conversion/minimax.py` and `models/minimax-m2.cpp`.
"""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architecture import COMMON_NAMES, Architecture, expert_names, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes, expert_sizes
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID
from edgert_models.spec import ModelSpec

ROUTER = replace(BIASED_SIGMOID, epsilon=0.0)


def config(c: Config) -> ModelSpec:
    """ModelSpec of MiniMaxM2ForCausalLM; queries and keys that are normalised otherwise are refused."""
    c.refuse_unless("use_qk_norm", (True,), default=True)
    c.refuse_unless("qk_norm_type", ("per_layer",), default="per_layer")
    c.refuse_unless("scoring_func", ("sigmoid",), default="sigmoid")
    c.refuse_unless("use_routing_bias", (True,), default=True)
    c.refuse_unless("shared_intermediate_size", (0,), default=0)
    if c.get("rotary_dim"):
        c = Config({"partial_rotary_factor": c.integer("rotary_dim") / c.integer("head_dim"), **c})
    return ModelSpec(
        architecture="minimax-m2",
        **decoder_sizes(c, RopeLayout.HALVES, partial=True),
        **expert_sizes(c, "intermediate_size", ROUTER),
        qk_norm="all",
    )


ARCHITECTURE = Architecture(
    name="minimax-m2",
    title="MiniMax-M2",
    hf_classes=("MiniMaxM2ForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names={
        **COMMON_NAMES,
        **expert_names("block_sparse_moe", gate="w1", up="w3", down="w2", bias="e_score_correction_bias"),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="all",
    router=ROUTER,
    llama_cpp=LlamaCpp(own_output=True),
)
