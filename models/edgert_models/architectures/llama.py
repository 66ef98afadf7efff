"""Llama 2 and 3, Mistral, Yi and Yi-1.5: dense decoders with rope and grouped queries.

GGUF files of this architecture store query and key rows with rotated pairs interleaved. Source: transformers'
`modeling_llama`, `modeling_mistral`; llama.cpp's converter for the row order.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, expert_names, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of LlamaForCausalLM or MistralForCausalLM."""
    return ModelSpec(
        architecture="llama",
        **decoder_sizes(c, RopeLayout.INTERLEAVED),
        window=None if c.get("sliding_window") is None else c.integer("sliding_window"),
        feed_forward_bias=c.boolean("mlp_bias"),
    )


ARCHITECTURE = Architecture(
    name="llama",
    title="Llama 2/3, Mistral, Yi",
    hf_classes=("LlamaForCausalLM", "MistralForCausalLM"),
    config=config,
    wire=pre_norm_decoder,
    # Mixtral's files carry this architecture's name too, so its experts are known here.
    names={**COMMON_NAMES, **expert_names("block_sparse_moe", gate="w1", up="w3", down="w2")},
    rope_layout=RopeLayout.INTERLEAVED,
)
