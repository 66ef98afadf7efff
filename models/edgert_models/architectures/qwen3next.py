"""Qwen3-Next: gated delta nets in three of four layers, attention whose result has a gate in the fourth; experts.

Sources: transformers' `modeling_qwen3_next`; llama.cpp's `conversion/qwen.py` and `models/qwen3next.cpp` for the names
in GGUF, where norms are whole, and queries, keys, values and gates of all heads follow one another.
"""

from __future__ import annotations

from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    attention,
    expert_names,
    hybrid_decoder,
    shared_expert_names,
    stored,
    zero_centred,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, layer_count, qwen_sparse_layers, recurrent_layers
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.nextn import Nextn, nextn_names
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.sources import Arranged, Groups, Source, Stored
from edgert_models.spec import ModelSpec, Recurrence

LAYER = "model.layers.{i}"
_PERIOD = 4  # of the layers that attend


def config(c: Config) -> ModelSpec:
    """ModelSpec of Qwen3NextForCausalLM."""
    router = Router(normalize=c.boolean("norm_topk_prob", True))
    return ModelSpec(
        architecture="qwen3next",
        **hybrid_sizes(c),
        **expert_sizes(c, "moe_intermediate_size", router),
        **qwen_sparse_layers(c),
        shared_feed_forward=c.integer("shared_expert_intermediate_size"),
        shared_gate=True,
    )


def hybrid_sizes(c: Config) -> dict[str, Any]:
    """The ModelSpec fields of all models with such layers."""
    period = c.integer("full_attention_interval", default=_PERIOD)
    kinds = ["linear_attention" if (i + 1) % max(period, 1) else "full_attention" for i in range(layer_count(c))]
    given = {key: value for key, value in c.items() if value is not None}
    c = Config({"partial_rotary_factor": 0.25, "layer_types": kinds, "head_dim": 256, **given})
    heads = c.integer("linear_num_value_heads", default=32)
    recurrence = Recurrence(
        layers=recurrent_layers(c, "linear_attention"),
        kernel=c.integer("linear_conv_kernel_dim", default=4),
        period=period,
        inner=heads * c.integer("linear_value_head_dim", default=128),
        state=c.integer("linear_key_head_dim", default=128),
        heads=heads,
        groups=c.integer("linear_num_key_heads", default=16),
    )
    return {**decoder_sizes(c, RopeLayout.HALVES, partial=True), "qk_norm": "head", "recurrence": recurrence}


def mix(g: Graph, x: Value, layer: int) -> Value:
    """Attention, or queries, keys and values through a short convolution and the delta rule, which are normalised and
    gated head by head.
    """
    s, r, block = g.spec, g.spec.recurrence, f"blk.{layer}"
    assert r is not None
    if not s.recurs(layer):
        return attention(g, x, block, window=None, rope=s.rope, gated=True)
    y = g.linear(x, f"{block}.attn_qkv", 2 * r.groups * r.state + r.inner)
    y = g.short_conv(y, f"{block}.ssm_conv1d", r.kernel, silu=True)
    tiled = s.architecture != "qwen3next"
    if tiled:
        b, a = (g.linear(x, f"{block}.ssm_{name}", r.heads) for name in ("beta", "alpha"))
    else:
        both, each = g.linear(x, f"{block}.ssm_ba", 2 * r.heads), r.heads // r.groups
        b, a = (g.slice(both, start, each, groups=r.groups) for start in (0, each))
    y = g.delta_rule(y, a, b, block, tiled=tiled)
    y = g.rms_norm(y, f"{block}.ssm_norm.weight", groups=r.heads)
    return g.linear(g.gated(g.linear(x, f"{block}.attn_gate", r.inner), y), f"{block}.ssm_out", s.width)


def wire(g: Graph) -> Plan:
    """The wiring of `hybrid_decoder` with delta nets."""
    return hybrid_decoder(g, mix, ffn_norm="post_attention_norm")


def _parts(*chosen: int) -> Any:
    """Rows of queries, keys, values and gates, which checkpoints have head of keys by head of keys."""

    def groups(s: ModelSpec) -> Groups:
        r = s.recurrence
        assert r is not None
        values = r.inner // r.groups
        return Groups(r.groups, (r.state, r.state, values, values), chosen)

    return groups


DELTA_NAMES: dict[str, Source] = {
    "ssm_a": Arranged((f"{LAYER}.linear_attn.A_log",), exponential=-1),
    "ssm_dt.bias": Stored((f"{LAYER}.linear_attn.dt_bias",)),
    "ssm_conv1d.weight": Stored((f"{LAYER}.linear_attn.conv1d.weight",)),
    "ssm_norm.weight": Stored((f"{LAYER}.linear_attn.norm.weight",)),
    "ssm_out.weight": Stored((f"{LAYER}.linear_attn.out_proj.weight",)),
}
NORM_NAMES: dict[str, Source] = zero_centred(
    {**COMMON_NAMES, **stored(post_attention_norm=f"{LAYER}.post_attention_layernorm")}
)
EXPERT_NAMES: dict[str, Source] = {
    **expert_names("mlp"),
    **shared_expert_names("mlp.shared_expert"),
    **stored(ffn_gate_inp_shexp=f"{LAYER}.mlp.shared_expert_gate"),
}


def nextn(plus: float = 0.0) -> Nextn:
    """Layers `mtp.layers.{k}` for multi-token prediction, which share all that is in no layer."""
    shared = {
        "eh_proj": "mtp.fc",
        "enorm": "mtp.pre_fc_norm_embedding",
        "hnorm": "mtp.pre_fc_norm_hidden",
        "shared_head_norm": "mtp.norm",
        "embed_tokens": "mtp.embed_tokens",
    }
    return Nextn(layers=("mtp.layers.{k}",), names=nextn_names(shared, plus))


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    r = spec.recurrence
    same = r is None or r.inner == r.heads * r.state
    return "" if same else "it wants keys and values of one size in delta nets"


ARCHITECTURE = Architecture(
    name="qwen3next",
    title="Qwen3-Next",
    hf_classes=("Qwen3NextForCausalLM",),
    config=config,
    wire=wire,
    names={
        **NORM_NAMES,
        **EXPERT_NAMES,
        **DELTA_NAMES,
        "ssm_ba.weight": Stored((f"{LAYER}.linear_attn.in_proj_ba.weight",)),
        "attn_qkv.weight": Arranged((f"{LAYER}.linear_attn.in_proj_qkvz.weight",), _parts(0, 1, 2)),
        "attn_gate.weight": Arranged((f"{LAYER}.linear_attn.in_proj_qkvz.weight",), _parts(3)),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    nextn=nextn(plus=1.0),
    left_out=("mtp.",),
    llama_cpp=LlamaCpp(output_bias=False, dense_layers="none", normalizes=True, refuses=(llama_cpp_refuses,)),
    notes="llama.cpp loads neither dense layers nor keys and values of different size in delta nets, and always "
    "normalises the weights of experts.",
)
