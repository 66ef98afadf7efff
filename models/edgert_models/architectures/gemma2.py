"""Gemma 2: Gemma with norms before and after, caps on scores and logits, and a window in every second layer.

Sources: transformers' `modeling_gemma2`; llama.cpp's `conversion/gemma.py` and `models/gemma2.cpp`, by which
files leave the scale of scores unsaid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgert_models.architecture import COMMON_NAMES, Architecture, sandwich_decoder, stored, zero_centred
from edgert_models.architectures.gemma import gemma_sizes, with_scaled_embedding
from edgert_models.config import Config, windows
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.sources import Source
from edgert_models.spec import ModelSpec, Scales

_PERIOD = 2  # of the layers that see everything
_LARGEST = 46  # layers of the 27B model, whose scores are scaled by the width of a head as if heads filled the model

NAMES: Mapping[str, Source] = zero_centred(
    {
        **COMMON_NAMES,
        **stored(
            post_attention_norm="model.layers.{i}.post_attention_layernorm",
            ffn_norm="model.layers.{i}.pre_feedforward_layernorm",
            post_ffw_norm="model.layers.{i}.post_feedforward_layernorm",
        ),
    }
)


def settle(spec: ModelSpec, largest: int = _LARGEST) -> ModelSpec:
    """The spec with scales that files leave unsaid, as llama.cpp knows them by the number of layers."""
    spec = with_scaled_embedding(spec)
    if spec.scales.attention is None and spec.layers == largest:
        spec = replace(spec, scales=replace(spec.scales, attention=(spec.width / spec.heads) ** -0.5))
    return spec


def config(c: Config) -> ModelSpec:
    """ModelSpec of Gemma2ForCausalLM."""
    c.refuse_unless("use_bidirectional_attention", (False,), default=False)
    scales = Scales(
        attention=c.positive("query_pre_attn_scalar", default=256.0) ** -0.5,
        attention_cap=c.number("attn_logit_softcapping"),
        logits_cap=c.number("final_logit_softcapping"),
    )
    return settle(ModelSpec(architecture="gemma2", **gemma_sizes(c), **windows(c, period=_PERIOD), scales=scales))


ARCHITECTURE = Architecture(
    name="gemma2",
    title="Gemma 2",
    hf_classes=("Gemma2ForCausalLM",),
    config=config,
    settle=settle,
    wire=sandwich_decoder,
    names=NAMES,
    rope_layout=RopeLayout.HALVES,
    activation="gelu",
    window_period=_PERIOD,
    llama_cpp=LlamaCpp(always_tied=True, output_bias=False, windows=True),
    notes="Models without caps are refused. llama.cpp scales scores by the width of a head, in models of 46 layers as"
    " if heads filled the model, whatever `query_pre_attn_scalar` is; ours has it in the file. It loads neither"
    " an output matrix nor a bias of the attention output.",
)
