"""Command A with experts: Command R7B's decoder, maybe with dense layers first; shared and routed experts are averaged.

Sources: transformers' `modeling_cohere2_moe`; llama.cpp's `conversion/command_r.py` and `models/cohere2moe.cpp`.
"""

from __future__ import annotations

from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    FileHabits,
    expert_names,
    feed_forward,
    parallel_decoder,
    shared_expert_names,
)
from edgert_models.architectures.command_r import cohere_sizes
from edgert_models.config import Config, expert_sizes, layer_count, mlp_layers, windows
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.nextn import AFTER_THE_LAST
from edgert_models.ops import Value
from edgert_models.rope import Rope, RopeLayout
from edgert_models.router import Router
from edgert_models.spec import ModelSpec

_PERIOD = 4  # of the layers that see everything


def config(c: Config) -> ModelSpec:
    """ModelSpec of Cohere2MoeForCausalLM; shared experts that are summed, and other windows of dense layers are
    refused.
    """
    shared = c.integer("num_shared_experts", default=0)
    if shared:
        c.refuse_unless("shared_expert_combination_strategy", ("average",), default="average")
    c.refuse_unless("prefix_dense_sliding_window_pattern", (1,), default=1)
    c = _with_leading_dense(c)
    sizes = {**cohere_sizes(c), "feed_forward": c.integer("prefix_dense_intermediate_size", default=0)}
    if c.get("rms_norm_eps") is not None:
        sizes |= {"layer_norm": False, "norm_eps": c.number("rms_norm_eps")}
    return ModelSpec(
        architecture="cohere2moe",
        **sizes,
        **windows(c, period=c.integer("sliding_window_pattern", default=_PERIOD)),
        **expert_sizes(c, "intermediate_size", _router(c)),
        **mlp_layers(c),
        shared_feed_forward=shared * c.integer("intermediate_size"),
    )


def _with_leading_dense(c: Config) -> Config:
    """The config with kinds of layers, where it says how many are dense: these see everything."""
    dense, layers = c.integer("first_k_dense_replace", default=0), layer_count(c)
    if not 0 <= dense <= layers:
        raise UnsupportedError(f"config.json: first_k_dense_replace={dense} of {layers} layers is not supported")
    usual = windows(Config({**c, "num_hidden_layers": layers - dense}), period=_PERIOD) if layers > dense else {}
    rest = usual.get("windowed", (False,) * (layers - dense))
    kinds: dict[str, Any] = {
        "layer_types": ["full_attention"] * dense + [("full_attention", "sliding_attention")[each] for each in rest],
        "mlp_layer_types": ["dense"] * dense + ["sparse"] * (layers - dense),
    }
    return Config({**c, **{key: value for key, value in kinds.items() if c.get(key) is None}})


def _router(c: Config) -> Router:
    c.refuse_unless("expert_selection_fn", ("softmax", "sigmoid"), default="softmax")
    if c.get("expert_selection_fn", "softmax") == "softmax":
        return Router()
    return Router(scoring="sigmoid", normalize=c.boolean("norm_topk_prob", True))


def rope_of(spec: ModelSpec, layer: int) -> Rope | None:
    """The rope of a layer."""
    return spec.rope if spec.window_of(layer) or not spec.has_experts(layer) else None


def averaged(g: Graph, x: Value, layer: int) -> Value:
    """The feed-forward network; where there are shared experts, their mean with the routed ones."""
    both = g.spec.shared_feed_forward and g.spec.has_experts(layer)
    return g.scale(feed_forward(g, x, layer), 0.5 if both else 1.0)


def wire(g: Graph) -> Plan:
    """The wiring of `parallel_decoder`."""
    return parallel_decoder(g, rope_of, averaged)


ARCHITECTURE = Architecture(
    name="cohere2moe",
    title="Command A with experts",
    hf_classes=("Cohere2MoeForCausalLM",),
    config=config,
    wire=wire,
    names={**COMMON_NAMES, **expert_names("mlp"), **shared_expert_names()},
    rope_layout=RopeLayout.INTERLEAVED,
    files=FileHabits(says_routing=True),
    checkpoint_layout=RopeLayout.INTERLEAVED,
    router=Router(scoring="sigmoid", normalize=False),
    window_period=_PERIOD,
    layer_norm=True,
    rms_norm_wins=True,
    nextn=AFTER_THE_LAST,
    llama_cpp=LlamaCpp(output_bias=False, windows=True),
    notes="Layer norms or RMS norms; softmax or sigmoid routers. Shared experts that are summed and not averaged, and"
    " dense layers with other windows than `prefix_dense_sliding_window_pattern: 1` are refused.",
)
