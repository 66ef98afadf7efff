"""Jamba: Mamba in most layers, with normalised time steps, attention without positions in the others; experts in some.

Sources: transformers' `modeling_jamba`; llama.cpp's `conversion/jamba.py` and `models/jamba.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, attention, expert_names, hybrid_decoder, stored
from edgert_models.architectures.granitehybrid import llama_cpp_refuses
from edgert_models.config import Config, decoder_sizes, expert_sizes, layer_count, sparse_layers
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.sources import Arranged, Stored
from edgert_models.spec import ModelSpec, Recurrence

_LAYER = "model.layers.{i}"
_MAMBA = f"{_LAYER}.mamba"
_ROUTER = Router(normalize=False)


def config(c: Config) -> ModelSpec:
    """ModelSpec of JambaForCausalLM; biases of Mamba's projections, and convolutions without, are refused."""
    c.refuse_unless("mamba_proj_bias", (False,), default=False)
    c.refuse_unless("mamba_conv_bias", (True,), default=True)
    width, layers = c.integer("hidden_size"), range(layer_count(c))
    period, offset = c.integer("attn_layer_period", default=8), c.integer("attn_layer_offset", default=4)
    sparse, first = c.integer("expert_layer_period", default=2), c.integer("expert_layer_offset", default=1)
    automatic = c.get("mamba_dt_rank", "auto") == "auto"
    recurrence = Recurrence(
        layers=tuple(i % max(period, 1) != offset for i in layers),
        kernel=c.integer("mamba_d_conv", default=4),
        inner=c.integer("mamba_expand", default=2) * width,
        state=c.integer("mamba_d_state", default=16),
        heads=-(-width // 16) if automatic else c.integer("mamba_dt_rank"),
        groups=1,
        norm=False,
    )
    sizes = {**decoder_sizes(c, RopeLayout.HALVES), "recurrence": recurrence, "positions": False}
    if c.integer("num_experts", default=16) > 1:
        sizes |= expert_sizes(c, "intermediate_size", _ROUTER)
        sizes |= sparse_layers(i % max(sparse, 1) == first for i in layers)
    return ModelSpec(architecture="jamba", **sizes)


def mix(g: Graph, x: Value, layer: int) -> Value:
    """Attention, or Mamba: its time steps are of low rank, and normalised as b and c are."""
    s, r, block = g.spec, g.spec.recurrence, f"blk.{layer}"
    assert r is not None
    if not s.recurs(layer):
        return attention(g, x, block, window=None, rope=None)
    projected = g.linear(x, f"{block}.ssm_in", 2 * r.inner)
    y = g.slice(projected, 0, r.inner)
    y = g.short_conv(y, f"{block}.ssm_conv1d", r.kernel, bias=True, silu=True)
    parts = g.linear(y, f"{block}.ssm_x", r.heads + 2 * r.state)
    starts = {"dt": (0, r.heads), "b": (r.heads, r.state), "c": (r.heads + r.state, r.state)}
    t, b, c = (g.rms_norm(g.slice(parts, *where), f"{block}.ssm_{name}_norm.weight") for name, where in starts.items())
    y = g.scan(y, g.linear(t, f"{block}.ssm_dt", r.inner), b, c, block, decays=r.state)
    return g.linear(g.gated(g.slice(projected, r.inner, r.inner), y), f"{block}.ssm_out", s.width)


def wire(g: Graph) -> Plan:
    """The wiring of `hybrid_decoder` with Mamba."""
    return hybrid_decoder(g, mix)


ARCHITECTURE = Architecture(
    name="jamba",
    title="Jamba",
    hf_classes=("JambaForCausalLM",),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **expert_names("feed_forward"),
        "ffn_gate_inp.weight": Stored((f"{_LAYER}.feed_forward.router.weight",)),
        **stored(
            output_norm="model.final_layernorm",
            ffn_norm=f"{_LAYER}.pre_ff_layernorm",
            ffn_gate=f"{_LAYER}.feed_forward.gate_proj",
            ffn_up=f"{_LAYER}.feed_forward.up_proj",
            ffn_down=f"{_LAYER}.feed_forward.down_proj",
            ssm_in=f"{_MAMBA}.in_proj",
            ssm_conv1d=f"{_MAMBA}.conv1d",
            ssm_x=f"{_MAMBA}.x_proj",
            ssm_dt=f"{_MAMBA}.dt_proj",
            ssm_dt_norm=f"{_MAMBA}.dt_layernorm",
            ssm_b_norm=f"{_MAMBA}.b_layernorm",
            ssm_c_norm=f"{_MAMBA}.c_layernorm",
            ssm_out=f"{_MAMBA}.out_proj",
        ),
        "ssm_a": Arranged((f"{_MAMBA}.A_log",), exponential=-1),
        "ssm_d": Stored((f"{_MAMBA}.D",)),
    },
    rope_layout=RopeLayout.HALVES,
    router=_ROUTER,
    positions=False,
    llama_cpp=LlamaCpp(dense_layers="any", refuses=(llama_cpp_refuses,)),
    notes="Biases of Mamba's projections, and convolutions without, are refused.",
)
