"""Kimi-Linear: Kimi Delta Attention in three of four layers, latent attention without positions in the fourth; experts.

Sources: Kimi Linear (arXiv 2510.26692); transformers' `modeling_kimi_linear`; llama.cpp's `conversion/kimi_linear.py`
and `models/kimi-linear.cpp` for the names in GGUF.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    expert_names,
    hybrid_decoder,
    shared_expert_names,
    stored,
)
from edgert_models.architectures.deepseek2 import attention, latent_names, latent_sizes
from edgert_models.config import (
    Config,
    biased_sigmoid,
    expert_sizes,
    layer_count,
    leading_dense_layers,
    recurrent_layers,
)
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID
from edgert_models.sources import Arranged, Source, Stored, renamed
from edgert_models.spec import ModelSpec, Recurrence

_ATTENTION = "model.layers.{i}.self_attn"
_CALLED = {
    "model_max_length": "max_position_embeddings",
    "moe_renormalize": "norm_topk_prob",
    "num_expert_group": "n_group",
    "num_experts_per_token": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
}
"""What DeepSeek's configs call otherwise."""


def config(c: Config) -> ModelSpec:
    """ModelSpec of KimiLinearForCausalLM; rope is refused."""
    c.refuse_unless("moe_router_activation_func", ("sigmoid",), default="sigmoid")
    c.refuse_unless("mla_use_nope", (True,), default=True)
    c = as_deepseek(c)
    given = c.get("linear_attn_config") or {}
    if not isinstance(given, Mapping):
        raise UnsupportedError(f"config.json: linear_attn_config must be an object, not {type(given).__name__}")
    own = Config({**c, **{f"linear_{key}": value for key, value in given.items()}})
    heads, size = own.integer("linear_num_heads", default=32), own.integer("linear_head_dim", default=128)
    recurrence = Recurrence(
        layers=_layers(c, given),
        kernel=own.integer("linear_short_conv_kernel_size", "linear_conv_kernel_dim", default=4),
        inner=heads * size,
        state=size,
        heads=heads,
        groups=heads,
        channels=True,
    )
    return ModelSpec(
        architecture="kimi-linear",
        **untied_sizes(c),
        **biased_experts(c),
        recurrence=recurrence,
        positions=False,
    )


def as_deepseek(c: Config) -> Config:
    """A config with names as in DeepSeek's."""
    return Config({**{ours: c[theirs] for theirs, ours in _CALLED.items() if c.get(theirs) is not None}, **c})


def untied_sizes(c: Config) -> dict[str, Any]:
    """The ModelSpec fields of decoders with latent attention, whose output matrix is never tied, whatever is said."""
    return {**latent_sizes(c), "tied": False}


def biased_experts(c: Config) -> dict[str, Any]:
    """The ModelSpec fields of experts after dense layers, and of shared ones."""
    return {
        **expert_sizes(c, "moe_intermediate_size", biased_sigmoid(c)),
        **leading_dense_layers(c, default=1),
        "shared_feed_forward": c.integer("moe_intermediate_size") * c.integer("n_shared_experts", default=1),
    }


def _layers(c: Config, given: Mapping[str, Any]) -> tuple[bool, ...]:
    """Of every layer, whether it is a delta net; checkpoints list layers that attend, and count them from 1."""
    full, layers = given.get("full_attn_layers"), layer_count(c)
    if full is None:
        usual = ["linear_attention" if i % 4 or not i else "full_attention" for i in range(layers)]
        return recurrent_layers(Config({**c, "layer_types": c.get("layer_types") or usual}), "linear_attention")
    if not isinstance(full, list):
        raise UnsupportedError(f"config.json: full_attn_layers must be a list of layers, not {full!r}")
    return tuple(i + 1 not in full for i in range(layers))


def delta_attention(g: Graph, x: Value, block: str, *, low_rank: bool) -> Value:
    """Queries, keys and values through short convolutions and a delta rule that decays by channel, normalised and gated
    head by head; decays and gates are products of two matrices each where `low_rank`.
    """
    r = g.spec.recurrence
    assert r is not None

    def product(name: str) -> Value:
        y = g.linear(x, f"{block}.ssm_{name}_a", r.state if low_rank else r.inner)
        return g.linear(y, f"{block}.ssm_{name}_b", r.inner) if low_rank else y

    q, k, v = (
        g.short_conv(
            g.linear(x, f"{block}.attn_{part}", r.inner), f"{block}.ssm_conv1d_{part}", r.kernel, silu=True, inner=(1,)
        )
        for part in "qkv"
    )
    y = g.delta_rule(q, product("f"), g.linear(x, f"{block}.ssm_beta", r.heads), block, k=k, v=v)
    y = g.rms_norm(y, f"{block}.ssm_norm.weight", groups=r.heads)
    return g.linear(g.gated(product("g"), y, "sigmoid"), f"{block}.attn_output", g.spec.width)


def delta_names(module: str) -> dict[str, Source]:
    """Kimi Delta Attention in the `module` of a checkpoint, without what gives decays and gates."""
    return {
        **{f"ssm_conv1d_{part}.weight": Stored((f"{module}.{part}_conv1d.weight",)) for part in "qkv"},
        "ssm_a": Arranged((f"{module}.A_log",), exponential=-1),
        "ssm_dt.bias": Stored((f"{module}.dt_bias",)),
        **stored(ssm_beta=f"{module}.b_proj", ssm_norm=f"{module}.o_norm"),
    }


def wire(g: Graph) -> Plan:
    """The wiring of `hybrid_decoder` with delta nets and latent attention."""

    def mix(g: Graph, x: Value, layer: int) -> Value:
        block = f"blk.{layer}"
        return delta_attention(g, x, block, low_rank=True) if g.spec.recurs(layer) else attention(g, x, block)

    return hybrid_decoder(g, mix)


def _everywhere(names: tuple[str, ...]) -> tuple[str, ...]:
    """Dense networks are where experts are elsewhere, in checkpoints of `transformers`."""
    return (*names, *(name.replace(".mlp.", ".block_sparse_moe.") for name in names))


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    r, latent = spec.recurrence, spec.latent
    if latent and latent.query_rank:
        return "it knows no latents of queries in kimi-linear"
    if spec.attention_bias:
        return "it knows no biases in kimi-linear"
    if not spec.shared_feed_forward:
        return "it wants shared experts in kimi-linear"
    return "" if r is None or r.heads == spec.heads else "it wants as many heads in delta nets as in attention"


ARCHITECTURE = Architecture(
    name="kimi-linear",
    title="Kimi-Linear",
    hf_classes=("KimiLinearForCausalLM",),
    config=config,
    wire=wire,
    names={
        **{name: renamed(source, _everywhere) for name, source in COMMON_NAMES.items()},
        **expert_names("block_sparse_moe", "w1", "w3", "w2"),
        **shared_expert_names("block_sparse_moe.shared_experts"),
        **latent_names(_ATTENTION),
        **delta_names(_ATTENTION),
        **stored(**{f"ssm_{name}": f"{_ATTENTION}.{name}_proj" for name in ("f_a", "f_b", "g_a", "g_b")}),
    },
    rope_layout=RopeLayout.INTERLEAVED,
    checkpoint_layout=RopeLayout.INTERLEAVED,
    router=BIASED_SIGMOID,
    positions=False,
    llama_cpp=LlamaCpp(own_output=True, normalizes=True, refuses=(llama_cpp_refuses,)),
    notes="Latent attention without positions. Norms of latents have an epsilon of 1e-6, as in `transformers`; "
    "llama.cpp takes the model's there.",
)
