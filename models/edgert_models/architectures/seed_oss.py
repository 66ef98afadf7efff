"""Seed-OSS: a dense decoder with biases of queries, keys and values.

Sources: transformers' `modeling_seed_oss`; llama.cpp's `models/seed-oss.cpp` for the name of the feed-forward's norm.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder, stored
from edgert_models.config import Config, decoder_sizes
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec

_FFN_NORM = "post_attention_norm"


def config(c: Config) -> ModelSpec:
    """ModelSpec of SeedOssForCausalLM."""
    biases = {
        "attention_bias": c.boolean("attention_bias", True),
        "output_bias": c.boolean("attention_out_bias"),
        "feed_forward_bias": c.boolean("mlp_bias"),
    }
    return ModelSpec(architecture="seed_oss", **{**decoder_sizes(c, RopeLayout.HALVES), **biases})


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`."""
    return pre_norm_decoder(g, ffn_norm=_FFN_NORM)


ARCHITECTURE = Architecture(
    name="seed_oss",
    title="Seed-OSS",
    hf_classes=("SeedOssForCausalLM",),
    config=config,
    wire=wire,
    names={**COMMON_NAMES, **stored(**{_FFN_NORM: "model.layers.{i}.post_attention_layernorm"})},
    rope_layout=RopeLayout.HALVES,
    llama_cpp=LlamaCpp(output_bias=False, feed_forward_bias=False),
    notes="llama.cpp loads no biases of the attention output and the feed-forward network.",
)
