"""Command R: layer norms without biases, attention and feed-forward side by side, logits with a factor.

Checkpoints have rotated pairs side by side already. Sources: transformers' `modeling_cohere`; llama.cpp's
`conversion/command_r.py` and `models/command-r.cpp`.
"""

from __future__ import annotations

from typing import Any

from edgert_models.architecture import COMMON_NAMES, Architecture, parallel_decoder
from edgert_models.config import Config, decoder_sizes
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec, Scales


def cohere_sizes(c: Config) -> dict[str, Any]:
    """The ModelSpec fields that both generations of Command R name alike."""
    return {
        **decoder_sizes(Config({"tie_word_embeddings": True, **c}), RopeLayout.INTERLEAVED),
        "norm_eps": c.number("layer_norm_eps", default=1e-5),
        "layer_norm": True,
        "scales": Scales(logits=c.number("logit_scale", default=0.0625)),
    }


def config(c: Config) -> ModelSpec:
    """ModelSpec of CohereForCausalLM; normalised queries and keys are refused."""
    c.refuse_unless("use_qk_norm", (False,), default=False)
    return ModelSpec(architecture="command-r", **cohere_sizes(Config({"rope_theta": 500000.0, **c})))


ARCHITECTURE = Architecture(
    name="command-r",
    title="Command R",
    hf_classes=("CohereForCausalLM",),
    config=config,
    wire=parallel_decoder,
    names=COMMON_NAMES,
    rope_layout=RopeLayout.INTERLEAVED,
    checkpoint_layout=RopeLayout.INTERLEAVED,
    layer_norm=True,
    llama_cpp=LlamaCpp(always_tied=True, output_bias=False),
    notes="Normalised queries and keys (`use_qk_norm`, Command R+) are refused. llama.cpp loads neither an output "
    "matrix nor biases of attention.",
)
