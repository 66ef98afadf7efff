"""Gemma 3, text: Gemma 2 without caps on scores, with normalised queries and keys, and another rope within windows.

Sources: transformers' `modeling_gemma3`; llama.cpp's `conversion/gemma.py` and `models/gemma3.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgert_models.architecture import Architecture, sandwich_decoder, with_inner
from edgert_models.architectures import gemma2
from edgert_models.architectures.gemma import gemma_sizes
from edgert_models.config import Config, text_of, windows
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec, Scales

_PERIOD = 6  # of the layers that see everything
_LARGEST = 62  # layers of the 27B model
_WINDOW_BASE = 10000.0
# What configs of checkpoints with a vision tower do not say.
_USUAL = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}


def settle(spec: ModelSpec) -> ModelSpec:
    """The spec with what files leave unsaid."""
    spec = gemma2.settle(spec, _LARGEST)
    if spec.window and spec.window_rope is None:
        spec = replace(spec, window_rope=replace(spec.rope.unscaled(), base=_WINDOW_BASE))
    return spec


def config(c: Config) -> ModelSpec:
    """ModelSpec of Gemma3ForCausalLM, or the text part of Gemma3ForConditionalGeneration."""
    c = Config({**_USUAL, **text_of(c, "gelu")})
    c.refuse_unless("use_bidirectional_attention", (False,), default=False)
    c.refuse_unless("attn_logit_softcapping", (None,), default=None)
    scales = Scales(
        attention=c.positive("query_pre_attn_scalar", default=256.0) ** -0.5,
        logits_cap=c.number("final_logit_softcapping", default=0.0) or None,
    )
    period = c.integer("sliding_window_pattern", default=_PERIOD)
    sizes = {**gemma_sizes(_with_two_ropes(c)), **windows(c, period=period)}
    return settle(ModelSpec(architecture="gemma3", **sizes, scales=scales, qk_norm="head"))


def _with_two_ropes(c: Config) -> Config:
    """The config with parameters of rope by kind of layer, as transformers writes it since its version 5."""
    given = c.get("rope_parameters")
    if isinstance(given, Mapping) and "full_attention" in given:
        return c
    everywhere = {"rope_theta": c.number("rope_theta", default=1e6), **(c.get("rope_scaling") or given or {})}
    within = {"rope_theta": c.number("rope_local_base_freq", default=_WINDOW_BASE)}
    return Config({**c, "rope_parameters": {"full_attention": everywhere, "sliding_attention": within}})


ARCHITECTURE = Architecture(
    name="gemma3",
    title="Gemma 3, text",
    hf_classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    config=config,
    settle=settle,
    wire=sandwich_decoder,
    names=with_inner(gemma2.NAMES),
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    activation="gelu",
    left_out=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
    window_period=_PERIOD,
    llama_cpp=LlamaCpp(output_bias=False, windows=True),
    notes="The text model, also of checkpoints with a vision tower, which is left out with a warning. llama.cpp "
    "scales scores by the width of a head, in models of 62 layers as if heads filled the model, whatever "
    "`query_pre_attn_scalar` is. It loads no bias of the attention output.",
)
