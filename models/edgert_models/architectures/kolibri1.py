"""Kolibri: norms before and after, windows outside of which nothing is rotated; experts chosen by their logits and a
bias, and weighed by sigmoids, beside a shared one.

The name in GGUF is ours, as llama.cpp has no such architecture. Source: transformers' `modeling_kolibri1`.
"""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    expert_names,
    sandwich_decoder,
    shared_expert_names,
    stored,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, windows
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.sources import Stored
from edgert_models.spec import ModelSpec

ROUTER = Router(scoring="sigmoid", bias=True, bias_logits=True)
_LAYER = "model.layers.{i}"
_PERIOD = 5  # of the layers that see everything


def config(c: Config) -> ModelSpec:
    """ModelSpec of Kolibri1ForCausalLM."""
    return ModelSpec(
        architecture="kolibri1",
        **decoder_sizes(c, RopeLayout.HALVES),
        **windows(c, period=_PERIOD, kept=c.get("sliding_window") is not None),
        **expert_sizes(c, "moe_intermediate_size", replace(ROUTER, normalize=c.boolean("norm_topk_prob", True))),
        shared_feed_forward=c.integer("shared_expert_intermediate_size"),
        qk_norm="head",
    )


def wire(g: Graph) -> Plan:
    """The wiring of `sandwich_decoder`, with rope in layers with a window, or in all where none has one."""
    return sandwich_decoder(g, lambda s, i: s.rope if not s.window or s.window_of(i) else None)


ARCHITECTURE = Architecture(
    name="kolibri1",
    title="Kolibri",
    hf_classes=("Kolibri1ForCausalLM",),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **stored(
            post_attention_norm=f"{_LAYER}.post_attn_norm",
            ffn_norm=f"{_LAYER}.post_attention_layernorm",
            post_ffw_norm=f"{_LAYER}.post_ffn_norm",
        ),
        **expert_names("mlp"),
        "exp_probs_b.bias": Stored((f"{_LAYER}.moe.router.expert_bias",)),
        **shared_expert_names(),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    router=ROUTER,
    window_period=_PERIOD,
    llama_cpp=LlamaCpp(known=False),
    notes="The name in GGUF is ours: llama.cpp has no such architecture.",
)
