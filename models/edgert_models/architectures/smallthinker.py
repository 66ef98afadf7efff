"""SmallThinker: a layer's experts are chosen before its attention, by what enters it; their gates are ReLUs.

Sources: the model's own `modeling_smallthinker.py`; llama.cpp's `conversion/smallthinker.py` and
`models/smallthinker.cpp`, which knows one order of windows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    FileHabits,
    attention,
    embedded,
    expert_names,
    norm,
    predict,
    residual,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, layer_count
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan, Role
from edgert_models.llama_cpp import LlamaCpp, sees_the_same
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.spec import ModelSpec

_PERIOD = 4  # of the layers that see everything, of which the first is one, and that have no positions


def config(c: Config) -> ModelSpec:
    """ModelSpec of SmallThinkerForCausalLM; other orders of windows and of rope, and dense layers, are refused."""
    own = {"num_experts": "moe_num_primary_experts", "num_experts_per_tok": "moe_num_active_primary_experts"}
    c = Config({**c, **{theirs: c.integer(name) for theirs, name in own.items()}})
    layers = layer_count(c)
    windowed = [int(each) for each in c.get("sliding_window_layout") or [0] * layers]
    rotated = [int(each) for each in c.get("rope_layout") or [1] * layers]
    usual = [int(i % _PERIOD != 0) for i in range(layers)]
    if (windowed, rotated) not in ((usual, usual), ([0] * layers, [1] * layers)):
        raise UnsupportedError(
            f"config.json: sliding_window_layout and rope_layout must leave out every {_PERIOD}th layer from the "
            "first, or there must be no windows and rope everywhere"
        )
    if not all(c.get("moe_layer_layout") or [1]):
        raise UnsupportedError("config.json: moe_layer_layout with dense layers is not supported")
    c.refuse_unless("moe_enable_early_router", (True,), default=True)
    c.refuse_unless("moe_enable_secondary_experts", (False,), default=False)
    window: dict[str, Any] = {"window": c.integer("sliding_window_size")} if any(windowed) else {}
    scoring = "softmax" if c.boolean("moe_primary_router_apply_softmax") else "sigmoid"
    return settle(
        ModelSpec(
            architecture="smallthinker",
            **decoder_sizes(c, RopeLayout.HALVES),
            **expert_sizes(c, "moe_ffn_hidden_size", Router(scoring=scoring)),
            **window,
            activation="relu",
        )
    )


def settle(spec: ModelSpec) -> ModelSpec:
    """With the order of windows, of which files say nothing."""
    return replace(spec, windowed=tuple(i % _PERIOD != 0 for i in range(spec.layers)) if spec.window else ())


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`, but for where the router reads."""
    s = g.spec
    x = embedded(g)
    for i in range(s.layers):
        block, window = f"blk.{i}", s.window_of(i)
        logits = g.linear(x, f"{block}.ffn_gate_inp", s.experts, role=Role.ROUTER)
        rope = s.rope if window or not s.window else None
        x = residual(g, x, attention(g, norm(g, x, f"{block}.attn_norm"), block, window=window, rope=rope))
        x = residual(g, x, g.moe(norm(g, x, f"{block}.ffn_norm"), logits, block))
    return predict(g, x)


def llama_cpp_differs(spec: ModelSpec) -> str:
    """What llama.cpp computes otherwise."""
    if sees_the_same(spec, 4096):
        return ""
    return f"llama.cpp takes windows of smallthinker as 4096 positions; this model's are of {spec.window}"


ARCHITECTURE = Architecture(
    name="smallthinker",
    title="SmallThinker",
    hf_classes=("SmallThinkerForCausalLM",),
    config=config,
    wire=wire,
    names={**COMMON_NAMES, **expert_names("block_sparse_moe", "gate", "up", "down", router="primary_router")},
    rope_layout=RopeLayout.HALVES,
    files=FileHabits(says_routing=True),
    activation="relu",
    settle=settle,
    llama_cpp=LlamaCpp(output_bias=False, windows=True, normalizes=True, differs=(llama_cpp_differs,)),
    notes="Windows in all but every fourth layer from the first, which has no rope, or none and rope everywhere; other "
    "orders and dense layers are refused. llama.cpp takes windows as 4096 positions, and loads no bias of the "
    "attention output.",
)
