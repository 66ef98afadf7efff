"""GLM-4.5, GLM-4.5-Air and GLM-4.6: half of each head rotated, experts chosen by sigmoids and a bias, shared experts.

Heads of queries and keys are normalised in the larger models. Sources: transformers' `modeling_glm4_moe`; llama.cpp's
`conversion/glm.py` and `models/glm4-moe.cpp` for the names in GGUF.
"""

from __future__ import annotations

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    expert_names,
    pre_norm_decoder,
    shared_expert_names,
    stored,
)
from edgert_models.config import Config, biased_sigmoid, decoder_sizes, expert_sizes, leading_dense_layers
from edgert_models.graph import Graph, Plan
from edgert_models.nextn import AFTER_THE_LAST
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of Glm4MoeForCausalLM."""
    c = Config({"partial_rotary_factor": 0.5, **c})
    return ModelSpec(
        architecture="glm4moe",
        **{**decoder_sizes(c, RopeLayout.HALVES, partial=True), "output_bias": False},
        **expert_sizes(c, "moe_intermediate_size", biased_sigmoid(c)),
        **leading_dense_layers(c, default=1),
        shared_feed_forward=c.integer("moe_intermediate_size") * c.integer("n_shared_experts", default=1),
        qk_norm="head" if c.boolean("use_qk_norm") else None,
    )


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`."""
    return pre_norm_decoder(g, ffn_norm="post_attention_norm")


ARCHITECTURE = Architecture(
    name="glm4moe",
    title="GLM-4.5, GLM-4.5-Air, GLM-4.6",
    hf_classes=("Glm4MoeForCausalLM",),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **stored(post_attention_norm="model.layers.{i}.post_attention_layernorm"),
        **expert_names("mlp"),
        **shared_expert_names(),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    router=BIASED_SIGMOID,
    nextn=AFTER_THE_LAST,
)
