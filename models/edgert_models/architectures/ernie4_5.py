"""ERNIE-4.5, dense: Llama's decoder, whose checkpoints have rotated pairs side by side already.

Sources: transformers' `modeling_ernie4_5`; llama.cpp's `models/ernie4-5.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of Ernie4_5ForCausalLM."""
    c = Config({"rope_theta": 500000.0, "tie_word_embeddings": True, **c})
    biases = dict.fromkeys(("attention_bias", "output_bias", "feed_forward_bias"), c.boolean("use_bias"))
    return ModelSpec(architecture="ernie4_5", **{**decoder_sizes(c, RopeLayout.INTERLEAVED), **biases})


ARCHITECTURE = Architecture(
    name="ernie4_5",
    title="ERNIE-4.5, dense",
    hf_classes=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    config=config,
    wire=pre_norm_decoder,
    names=COMMON_NAMES,
    rope_layout=RopeLayout.INTERLEAVED,
    checkpoint_layout=RopeLayout.INTERLEAVED,
    llama_cpp=LlamaCpp(feed_forward_bias=False),
    notes="Biases of everything with `use_bias`, which llama.cpp does not load in the feed-forward network.",
)
