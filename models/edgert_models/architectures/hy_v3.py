"""Hy3: Qwen3's attention; experts by sigmoids and a bias, beside a shared one, after dense layers.

Sources: transformers' `modeling_hy_v3`; llama.cpp's `conversion/hunyuan.py` and `models/hy-v3.cpp`, where the bias has
a name of its own.
"""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    expert_names,
    pre_norm_decoder,
    shared_expert_names,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, leading_dense_layers
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.nextn import AFTER_THE_LAST, nextn_names
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID
from edgert_models.sources import Stored
from edgert_models.spec import ModelSpec

_BIAS = "exp_probs_b"
_LAST_NORM = nextn_names({"shared_head_norm": "model.layers.{i}.final_layernorm"})


def config(c: Config) -> ModelSpec:
    """ModelSpec of HYV3ForCausalLM; biases of networks are refused."""
    c.refuse_unless("mlp_bias", (False,), default=False)
    router = replace(BIASED_SIGMOID, normalize=c.boolean("route_norm", True), scale=c.number("router_scaling_factor"))
    spec = ModelSpec(
        architecture="hy_v3",
        **decoder_sizes(Config({"rope_theta": 11158840.0, **c}), RopeLayout.HALVES),
        **expert_sizes(c, "moe_intermediate_size", router),
        **leading_dense_layers(c, default=1),
        shared_feed_forward=c.integer("moe_intermediate_size") * c.integer("num_shared_experts", default=1),
        qk_norm="head",
    )
    return settle(spec)


def settle(spec: ModelSpec) -> ModelSpec:
    """With the bias under its name."""
    return replace(spec, selection_bias=_BIAS)


ARCHITECTURE = Architecture(
    name="hy_v3",
    title="Hy3",
    hf_classes=("HYV3ForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names={
        **COMMON_NAMES,
        **expert_names("mlp", router="router.gate"),
        **shared_expert_names("mlp.shared_mlp"),
        _BIAS: Stored(("model.layers.{i}.mlp.expert_bias",)),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    router=BIASED_SIGMOID,
    settle=settle,
    llama_cpp=LlamaCpp(output_bias=False),
    nextn=replace(AFTER_THE_LAST, names={**AFTER_THE_LAST.names, **_LAST_NORM}),
)
