"""Granite 4 hybrid, dense and with experts: Mamba 2 in most layers, attention in the others.

Sources: transformers' `modeling_granitemoehybrid`; llama.cpp's `conversion/granite.py` and
`models/granite-hybrid.cpp` for the names in GGUF. Models of this class whose layers all attend are plain Granite there.
"""

from __future__ import annotations

import math
from typing import Any

from edgert_models.architecture import (
    Architecture,
    attention,
    hybrid_decoder,
)
from edgert_models.architectures import granitemoe
from edgert_models.architectures.granite import scales
from edgert_models.config import Config, decoder_sizes, expert_sizes, layer_count, recurrent_layers
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_models.router import SOFTMAX
from edgert_models.sources import Arranged, Source, Stored
from edgert_models.spec import ModelSpec, Recurrence

_LAYER = "model.layers.{i}"
_KINDS = {"mamba": "linear_attention", "attention": "full_attention"}  # as earlier transformers call them


def config(c: Config) -> ModelSpec:
    """ModelSpec of GraniteMoeHybridForCausalLM; layers that all attend need rope."""
    c.refuse_unless("position_embedding_type", ("nope", "rope"), default="nope")
    layers = hybrid_layers(c)
    experts, width = c.integer("num_local_experts", default=8), c.integer("shared_intermediate_size", default=1024)
    sizes: dict[str, Any] = decoder_sizes(c, RopeLayout.INTERLEAVED)
    if experts:
        sizes |= {**expert_sizes(c, "intermediate_size", SOFTMAX), "shared_feed_forward": width}
    else:
        sizes["feed_forward"] = width
    if not any(layers):
        c.refuse_unless("position_embedding_type", ("rope",), default=None)
        return ModelSpec(architecture="granitemoe" if experts else "granite", **sizes, scales=scales(c))
    return ModelSpec(
        architecture="granitehybrid",
        **sizes,
        scales=scales(c),
        recurrence=mamba(c, layers),
        positions=c.get("position_embedding_type") == "rope",
    )


def hybrid_layers(c: Config) -> tuple[bool, ...]:
    """Of every layer whether it is Mamba; all are where nothing is said."""
    kinds = c.get("layer_types") or ["linear_attention"] * layer_count(c)
    if isinstance(kinds, list):
        c = Config({**c, "layer_types": [_KINDS.get(str(kind), kind) for kind in kinds]})
    return recurrent_layers(c, "linear_attention")


def mamba(c: Config, layers: tuple[bool, ...]) -> Recurrence:
    """The Recurrence of Mamba 2 as these configs describe it; biases of projections and limits of Δ are refused."""
    c.refuse_unless("mamba_proj_bias", (False,), default=False)
    c.refuse_unless("mamba_conv_bias", (True,), default=True)
    limit = c.get("time_step_limit")
    if limit not in (None, [0.0, math.inf], [0.0, {"__float__": "Infinity"}]):
        raise UnsupportedError(f"config.json: time_step_limit={limit!r} is not supported; supported: [0, infinity]")
    return Recurrence(
        layers=layers,
        kernel=c.integer("mamba_d_conv", default=4),
        inner=c.integer("mamba_expand", default=2) * c.integer("hidden_size"),
        state=c.integer("mamba_d_state", default=256),
        heads=c.integer("mamba_n_heads", default=128),
        groups=c.integer("mamba_n_groups", default=1),
    )


def mix(g: Graph, x: Value, layer: int) -> Value:
    """Attention, or Mamba 2: a short convolution and a selective scan, gated and normalised."""
    s, block = g.spec, f"blk.{layer}"
    if s.recurs(layer):
        return mamba_layer(g, x, block)
    return attention(g, x, block, window=None, rope=s.rope if s.positions else None)


def mamba_layer(g: Graph, x: Value, block: str) -> Value:
    """Mamba 2."""
    s, r = g.spec, g.spec.recurrence
    assert r is not None
    shared = r.groups * r.state
    mixed = r.inner + 2 * shared
    projected = g.linear(x, f"{block}.ssm_in", r.inner + mixed + r.heads)
    gate, t = g.slice(projected, 0, r.inner), g.slice(projected, r.inner + mixed, r.heads)
    y = g.short_conv(g.slice(projected, r.inner, mixed), f"{block}.ssm_conv1d", r.kernel, bias=True, silu=True)
    b, c = (g.slice(y, start, shared) for start in (r.inner, r.inner + shared))
    y = g.scan(g.slice(y, 0, r.inner), t, b, c, block)
    y = g.gated(gate, y)
    y = g.rms_norm(y, f"{block}.ssm_norm.weight", groups=r.groups, own=True) if r.norm else y
    return g.linear(y, f"{block}.ssm_out", s.width)


def wire(g: Graph) -> Plan:
    """The wiring of `hybrid_decoder` with Mamba 2."""
    return hybrid_decoder(g, mix)


def mamba_names(module: str) -> dict[str, Source]:
    """The tensors of Mamba 2 in a module of a layer."""
    return {
        "ssm_in.weight": Stored((f"{module}.in_proj.weight",)),
        "ssm_conv1d.weight": Stored((f"{module}.conv1d.weight",)),
        "ssm_conv1d.bias": Stored((f"{module}.conv1d.bias",)),
        "ssm_a": Arranged((f"{module}.A_log",), exponential=-1),
        "ssm_d": Arranged((f"{module}.D",)),
        "ssm_dt.bias": Stored((f"{module}.dt_bias",)),
        "ssm_norm.weight": Arranged((f"{module}.norm.weight",)),
        "ssm_out.weight": Stored((f"{module}.out_proj.weight",)),
    }


_SHARED = f"{_LAYER}.shared_mlp"


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    r = spec.recurrence
    fits = r is None or r.inner == 2 * spec.width
    return "" if fits else f"it wants Mamba twice as wide as the model in {spec.architecture}"


ARCHITECTURE = Architecture(
    name="granitehybrid",
    title="Granite 4 hybrid",
    hf_classes=("GraniteMoeHybridForCausalLM",),
    config=config,
    wire=wire,
    names={
        **granitemoe.ARCHITECTURE.names,
        **mamba_names(f"{_LAYER}.mamba"),
        "ffn_gate.weight": Stored((f"{_SHARED}.input_linear.weight",), 0, 2),
        "ffn_up.weight": Stored((f"{_SHARED}.input_linear.weight",), 1, 2),
        "ffn_down.weight": Stored((f"{_SHARED}.output_linear.weight",)),
    },
    rope_layout=RopeLayout.INTERLEAVED,
    logits_divided=True,
    llama_cpp=LlamaCpp(rope_factors=True, score_scale=True, refuses=(llama_cpp_refuses,)),
    notes="Biases of Mamba's projections, convolutions without, and limits of its time step are refused.",
)
