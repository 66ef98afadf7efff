"""Granite 3 and 4, dense and with experts: Llama's decoder with factors on embeddings, scores, residuals and logits.

GGUF files order query and key rows as those of Llama. Sources: transformers' `modeling_granite`, `modeling_granitemoe`,
`modeling_granitemoeshared`; llama.cpp's `conversion/granite.py` and `models/granite.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec, Scales


def scales(c: Config) -> Scales:
    """What config.json calls multipliers."""
    return Scales(
        embedding=c.number("embedding_multiplier", default=1.0),
        residual=c.number("residual_multiplier", default=1.0),
        attention=c.number("attention_multiplier", default=1.0),
        logits_divisor=c.number("logits_scaling", default=1.0),
    )


def config(c: Config) -> ModelSpec:
    """ModelSpec of GraniteForCausalLM."""
    sizes = decoder_sizes(c, RopeLayout.INTERLEAVED)
    return ModelSpec(architecture="granite", **sizes, scales=scales(c), feed_forward_bias=c.boolean("mlp_bias"))


ARCHITECTURE = Architecture(
    name="granite",
    title="Granite, dense",
    hf_classes=("GraniteForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names=COMMON_NAMES,
    rope_layout=RopeLayout.INTERLEAVED,
    logits_divided=True,
    llama_cpp=LlamaCpp(rope_factors=True, score_scale=True),
)
