"""MiMo-V2-Flash: windows in most layers, with sinks and more key heads; values shorter than keys, and scaled; experts
by sigmoids and a bias.

Sources: transformers' `modeling_mimo_v2_flash`; llama.cpp's `conversion/mimo.py` and `models/mimo2.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    attention,
    embedded,
    expert_names,
    feed_forward,
    norm,
    predict,
    residual,
    stored,
)
from edgert_models.config import Config, biased_sigmoid, decoder_sizes, expert_sizes, leading_dense_layers, windows
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.nextn import Nextn, nextn_names
from edgert_models.rope import RopeLayout, rope_parameters
from edgert_models.router import BIASED_SIGMOID
from edgert_models.sources import Stored
from edgert_models.spec import ModelSpec, Scales

_SHARE = 0.334  # of each head that is rotated


def config(c: Config) -> ModelSpec:
    """ModelSpec of MiMoV2FlashForCausalLM; sinks elsewhere, and heads that differ otherwise, are refused."""
    c.refuse_unless("add_full_attention_sink_bias", (False,), default=False)
    c.refuse_unless("add_swa_attention_sink_bias", (True,), default=True)
    for key in ("head_dim", "v_head_dim", "num_attention_heads"):
        c.refuse_unless(f"swa_{key}", (c.integer(key),), default=c.integer(key))
    c = _by_layer(c)
    kv_heads = c.integer("num_key_value_heads")
    sizes: dict[str, Any] = {**decoder_sizes(c, RopeLayout.HALVES, partial=True), "output_bias": False}
    return ModelSpec(
        architecture="mimo2",
        **sizes,
        **windows(c, period=1),
        **expert_sizes(c, "moe_intermediate_size", biased_sigmoid(c)),
        **leading_dense_layers(c),
        value_length=c.integer("v_head_dim"),
        window_kv_heads=c.integer("swa_num_key_value_heads", default=2 * kv_heads),
        scales=Scales(values=c.number("attention_value_scale", default=1.0)),
    )


def _by_layer(c: Config) -> Config:
    """The config with the names of today: the published checkpoint has older ones, and a window beside the position."""
    found: dict[str, Any] = dict(c)
    if isinstance(c.get("hybrid_layer_pattern"), list):
        kinds = ("full_attention", "sliding_attention")
        found.setdefault("layer_types", [kinds[bool(each)] for each in c["hybrid_layer_pattern"]])
    if isinstance(c.get("moe_layer_freq"), list):
        found.setdefault("mlp_layer_types", [("dense", "sparse")[bool(each)] for each in c["moe_layer_freq"]])
    if c.get("sliding_window_size") is not None:
        found["sliding_window"] = c.integer("sliding_window_size") + 1
    if c.get("rope_parameters") is None:
        if rope_parameters(c).get("type", rope_parameters(c).get("rope_type", "default")) != "default":
            raise UnsupportedError(f"config.json: rope_scaling={c['rope_scaling']} is not supported; supported: None")
        share = c.number("partial_rotary_factor", default=_SHARE)
        bases = {"full_attention": c.get("rope_theta", 5e6), "sliding_attention": c.get("swa_rope_theta", 1e4)}
        found["rope_parameters"] = {
            kind: {"rope_type": "default", "rope_theta": base, "partial_rotary_factor": share}
            for kind, base in bases.items()
        }
    elif isinstance(c["rope_parameters"], Mapping):
        found["rope_parameters"] = {
            kind: {"partial_rotary_factor": _SHARE, **given} if given.get("rope_type") == "default" else given
            for kind, given in c["rope_parameters"].items()
            if isinstance(given, Mapping)
        }
    return Config(found)


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`, with sinks in layers with a window."""
    s = g.spec
    x = embedded(g)
    for i in range(s.layers):
        block, window = f"blk.{i}", s.window_of(i)
        y = norm(g, x, f"{block}.attn_norm")
        sinks = f"{block}.attn_sinks.weight" if window else None
        x = residual(g, x, attention(g, y, block, window=window, rope=s.rope_of(i), sinks=sinks))
        x = residual(g, x, feed_forward(g, norm(g, x, f"{block}.ffn_norm"), i))
    return predict(g, x)


_NEXTN_LAYER = "model.mtp.layers.{k}"
_NEXTN = Nextn(
    layers=(_NEXTN_LAYER,),
    names={
        **nextn_names({name: f"{_NEXTN_LAYER}.{name}" for name in ("eh_proj", "enorm", "hnorm")}),
        **stored(layer_output_norm=f"{_NEXTN_LAYER}.final_layernorm"),
    },
    windowed=True,
)
ARCHITECTURE = Architecture(
    name="mimo2",
    title="MiMo-V2-Flash",
    hf_classes=("MiMoV2FlashForCausalLM",),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **expert_names("mlp"),
        "attn_sinks.weight": Stored(("model.layers.{i}.self_attn.attention_sink_bias",)),
    },
    rope_layout=RopeLayout.HALVES,
    router=BIASED_SIGMOID,
    nextn=_NEXTN,
    left_out=("model.mtp.",),
    llama_cpp=LlamaCpp(own_output=True, windows=True, normalizes=True),
    notes="More key heads in layers with a window, and sinks there. llama.cpp always normalises the weights of "
    "experts.",
)
