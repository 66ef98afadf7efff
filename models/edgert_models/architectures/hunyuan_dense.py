"""Hunyuan, dense: queries and keys are normalised head by head after they are rotated.

Sources: transformers' `modeling_hunyuan_v1_dense`; llama.cpp's `conversion/hunyuan.py` and `models/hunyuan-vl.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder, stored
from edgert_models.config import Config, decoder_sizes
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout, rope_parameters
from edgert_models.spec import ModelSpec

_ATTENTION = "model.layers.{i}.self_attn"


def config(c: Config) -> ModelSpec:
    """ModelSpec of HunYuanDenseV1ForCausalLM."""
    return ModelSpec(
        architecture="hunyuan-dense", **decoder_sizes(with_stretched_base(c), RopeLayout.HALVES), qk_norm="head"
    )


def with_stretched_base(c: Config) -> Config:
    """The config with the rope that it means: `dynamic` with an `alpha` is another base, and no scaling."""
    given = rope_parameters(c)
    if not given.get("alpha"):
        return c
    if given.get("rope_type", given.get("type")) != "dynamic":
        return c
    size = c.integer("head_dim", default=c.integer("hidden_size") // c.integer("num_attention_heads"))
    base = Config(given).number("rope_theta", default=c.number("rope_theta", default=10000.0))
    base *= Config(given).number("alpha") ** (size / (size - 2))
    return Config({**c, "rope_parameters": {"rope_type": "default", "rope_theta": base}})


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`."""
    return pre_norm_decoder(g, rope_first=True)


ARCHITECTURE = Architecture(
    name="hunyuan-dense",
    title="Hunyuan, dense",
    hf_classes=("HunYuanDenseV1ForCausalLM",),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **stored(attn_q_norm=f"{_ATTENTION}.query_layernorm", attn_k_norm=f"{_ATTENTION}.key_layernorm"),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    llama_cpp=LlamaCpp(output_bias=False),
    notes="The rope that `alpha` stretches is honoured. llama.cpp loads no bias of the attention output.",
)
