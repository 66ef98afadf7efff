"""GLM-4 (0414), dense: norms before and after, rope of half of each head, one product for gates and ups.

Checkpoints have rotated pairs side by side already. Sources: transformers' `modeling_glm4`; llama.cpp's
`conversion/glm.py` and `models/glm4.cpp` for the names in GGUF.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, sandwich_decoder, stored
from edgert_models.config import Config, decoder_sizes
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec

_LAYER = "model.layers.{i}"


def config(c: Config) -> ModelSpec:
    """ModelSpec of Glm4ForCausalLM."""
    c = Config({"partial_rotary_factor": 0.5, **c})
    sizes = {**decoder_sizes(c, RopeLayout.INTERLEAVED, partial=True), "output_bias": False}
    return ModelSpec(architecture="glm4", **sizes, fused_feed_forward=True)


ARCHITECTURE = Architecture(
    name="glm4",
    title="GLM-4 0414, dense",
    hf_classes=("Glm4ForCausalLM",),
    config=config,
    wire=sandwich_decoder,
    names={
        **COMMON_NAMES,
        **stored(
            post_attention_norm=f"{_LAYER}.post_self_attn_layernorm",
            post_ffw_norm=f"{_LAYER}.post_mlp_layernorm",
            ffn_up=f"{_LAYER}.mlp.gate_up_proj",
        ),
    },
    rope_layout=RopeLayout.INTERLEAVED,
    checkpoint_layout=RopeLayout.INTERLEAVED,
    llama_cpp=LlamaCpp(output_bias=False),
)
