"""Ling and Ring, the first: Llama's attention with one product for queries, keys and values, and shared experts.

Sources: the model's own `modeling_bailing_moe.py`; llama.cpp's `conversion/bailingmoe.py` and `models/bailingmoe.cpp`,
whose files have queries, keys and values apart, and rotated pairs side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    expert_names,
    pre_norm_decoder,
    shared_expert_names,
    stored,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, leading_dense_layers
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.sources import Arranged, Order, Source
from edgert_models.spec import ModelSpec

_LAYER = "model.layers.{i}"


def attention_sizes(c: Config, layout: RopeLayout) -> dict[str, Any]:
    """The ModelSpec fields of all generations; heads of the output matrix that are normalised are refused."""
    c.refuse_unless("norm_head", (False,), default=False)
    c.refuse_unless("use_bias", (False,), default=False)
    biases = {"attention_bias": c.boolean("use_qkv_bias"), "output_bias": False}
    return {**decoder_sizes(c, layout, partial=True), **biases}


def shared_width(c: Config) -> int:
    """Elements of the hidden values of all shared experts."""
    return c.integer("moe_intermediate_size") * c.integer("num_shared_experts", default=0)


def config(c: Config) -> ModelSpec:
    """ModelSpec of BailingMoeForCausalLM."""
    return ModelSpec(
        architecture="bailingmoe",
        **attention_sizes(c, RopeLayout.INTERLEAVED),
        **expert_sizes(c, "moe_intermediate_size", Router(normalize=c.boolean("norm_topk_prob"))),
        **leading_dense_layers(c),
        shared_feed_forward=shared_width(c),
    )


def _part(part: str) -> Callable[[ModelSpec], Order]:
    """Where rows of queries, keys or values are among all three, in the order of the file."""

    def order(spec: ModelSpec) -> Order:
        starts = {"q": 0, "k": spec.query_width, "v": spec.query_width + spec.kv_width}
        half, rows = spec.head_size // 2, range(spec.query_width if part == "q" else spec.kv_width)
        if part == "v":
            return Order(tuple(starts[part] + row for row in rows), starts["v"] + spec.kv_width)
        heads = (divmod(row, spec.head_size) for row in rows)
        found = (starts[part] + head * spec.head_size + i // 2 + i % 2 * half for head, i in heads)
        return Order(tuple(found), starts["v"] + spec.kv_width)

    return order


BAILING_NAMES: dict[str, Source] = {
    **COMMON_NAMES,
    **stored(token_embd="model.word_embeddings", attn_output=f"{_LAYER}.attention.dense"),
    **expert_names("mlp", bias="gate.expert_bias"),
    **shared_expert_names(),
}

ARCHITECTURE = Architecture(
    name="bailingmoe",
    title="Ling, Ring",
    hf_classes=("BailingMoeForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names={
        **BAILING_NAMES,
        **{
            f"attn_{part}.{kind}": Arranged((f"{_LAYER}.attention.query_key_value.{kind}",), _part(part))
            for part in "qkv"
            for kind in ("weight", "bias")
        },
    },
    rope_layout=RopeLayout.INTERLEAVED,
    checkpoint_layout=RopeLayout.INTERLEAVED,
    llama_cpp=LlamaCpp(own_output=True, dense_layers="none"),
    notes="Normalised output matrices (`norm_head`) are refused. llama.cpp knows no dense layers.",
)
