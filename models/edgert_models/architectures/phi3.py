"""Phi-3, Phi-3.5-mini and Phi-4: Llama's decoder with one product for queries, keys and values, one for gates and ups.

Sources: transformers' `modeling_phi3`; llama.cpp's `conversion/phi.py` and `models/phi3.cpp` for the names in GGUF.
"""

from __future__ import annotations

from typing import Any

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder, stored
from edgert_models.config import Config, decoder_sizes
from edgert_models.rope import RopeLayout, rope_parameters
from edgert_models.spec import ModelSpec

_LAYER = "model.layers.{i}"


def config(c: Config) -> ModelSpec:
    """ModelSpec of Phi3ForCausalLM."""
    c = Config({"original_max_position_embeddings": 4096, **c, "attention_bias": False})
    window: dict[str, Any] = {"window": c.integer("sliding_window")} if c.get("sliding_window") is not None else {}
    return ModelSpec(
        architecture="phi3",
        **decoder_sizes(_with_longrope(c), RopeLayout.HALVES, partial=True),
        **window,
        fused_attention=True,
        fused_feed_forward=True,
    )


def _with_longrope(c: Config) -> Config:
    """The config with the name that the scaling has today: early checkpoints say yarn."""
    given = rope_parameters(c)
    if given.get("rope_type", given.get("type")) != "yarn":
        return c
    return Config({**c, "rope_parameters": {**given, "rope_type": "longrope"}})


ARCHITECTURE = Architecture(
    name="phi3",
    title="Phi-3, Phi-3.5-mini, Phi-4",
    hf_classes=("Phi3ForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names={
        **COMMON_NAMES,
        **stored(attn_qkv=f"{_LAYER}.self_attn.qkv_proj", ffn_up=f"{_LAYER}.mlp.gate_up_proj"),
    },
    rope_layout=RopeLayout.HALVES,
    notes="Rope scaling longrope: sessions whose context is within the original one turn positions by the short "
    "factors, others by the long ones; a session whose context is not given keeps within the original one. "
    "llama.cpp ignores sliding windows.",
)
