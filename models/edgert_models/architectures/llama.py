"""Llama 2 and 3, Mistral, Ministral, Yi and Yi-1.5: dense decoders with rope and grouped queries.

GGUF files of this architecture store query and key rows with rotated pairs interleaved. Source: transformers'
`modeling_llama`, `modeling_mistral`, `modeling_ministral`; llama.cpp's converter for the row order.
"""

from __future__ import annotations

from typing import Any

from edgert_models.architecture import COMMON_NAMES, Architecture, expert_names, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes, windows
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of LlamaForCausalLM, which has no windows, MistralForCausalLM, where all layers have one, or, with
    `layer_types`, MinistralForCausalLM.
    """
    window: dict[str, Any] = {}
    kind = c["architectures"][0]
    if kind == "MinistralForCausalLM" and c.get("layer_types") is not None:
        window = windows(c, period=1)
    elif kind != "LlamaForCausalLM" and c.get("sliding_window") is not None:
        window = {"window": c.integer("sliding_window")}
    return ModelSpec(
        architecture="llama",
        **decoder_sizes(c, RopeLayout.INTERLEAVED),
        **window,
        feed_forward_bias=c.boolean("mlp_bias"),
    )


ARCHITECTURE = Architecture(
    name="llama",
    title="Llama 2/3, Mistral, Ministral, Yi",
    hf_classes=("LlamaForCausalLM", "MistralForCausalLM", "MinistralForCausalLM"),
    config=config,
    wire=pre_norm_decoder,
    # Mixtral's files carry this architecture's name too, so its experts are known here.
    names={**COMMON_NAMES, **expert_names("block_sparse_moe", gate="w1", up="w3", down="w2")},
    rope_layout=RopeLayout.INTERLEAVED,
    llama_cpp=LlamaCpp(rope_factors=True),
    notes="Sliding windows of Mistral, and of Ministral in the layers that `layer_types` names, are honoured; "
    "llama.cpp attends to everything in both.",
)
