"""Bamba: Granite 4's hybrid layers without its factors, and with rope.

Sources: transformers' `modeling_bamba`; llama.cpp's `conversion/granite.py`, where it is a Granite hybrid.
"""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architecture import COMMON_NAMES, stored
from edgert_models.architectures import granitehybrid
from edgert_models.config import Config, decoder_sizes, layer_count
from edgert_models.rope import RopeLayout
from edgert_models.spec import ModelSpec

_LAYER = "model.layers.{i}"


def config(c: Config) -> ModelSpec:
    """ModelSpec of BambaForCausalLM."""
    attends = c.get("attn_layer_indices") or []
    sizes = decoder_sizes(Config({"partial_rotary_factor": 0.5, **c}), RopeLayout.INTERLEAVED, partial=True)
    return ModelSpec(
        architecture="granitehybrid",
        **sizes,
        recurrence=granitehybrid.mamba(c, tuple(i not in attends for i in range(layer_count(c)))),
        feed_forward_bias=c.boolean("mlp_bias"),
    )


ARCHITECTURE = replace(
    granitehybrid.ARCHITECTURE,
    title="Bamba (granitehybrid with rope)",
    hf_classes=("BambaForCausalLM",),
    config=config,
    names={
        **COMMON_NAMES,
        **granitehybrid.mamba_names(f"{_LAYER}.mamba"),
        **stored(
            output_norm="model.final_layernorm",
            ffn_norm=f"{_LAYER}.pre_ff_layernorm",
            ffn_gate=f"{_LAYER}.feed_forward.gate_proj",
            ffn_up=f"{_LAYER}.feed_forward.up_proj",
            ffn_down=f"{_LAYER}.feed_forward.down_proj",
        ),
    },
    notes="llama.cpp's own converter orders rows of queries and keys as if whole heads were rotated: its files answer "
    "differently.",
)
