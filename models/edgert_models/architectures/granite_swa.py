"""Granite with windows and sinks, dense and with experts: windows in some layers, and no rope in some.

Sources: transformers' `modeling_granite_swa` and `modeling_granitemoe_swa`; llama.cpp's `conversion/granite.py` and
`models/granite-swa.cpp`, whose files have gates and ups of shared experts in one tensor.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgert_models.architecture import Architecture, feed_forward, parts_of, pre_norm_decoder
from edgert_models.architectures import granitemoe
from edgert_models.architectures.granite import scales
from edgert_models.config import Config, decoder_sizes, expert_sizes, layer_count, windows
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan, Role
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.ops import Value
from edgert_models.rope import Rope, RopeLayout, rope_parameters
from edgert_models.router import SOFTMAX
from edgert_models.sources import Stored
from edgert_models.spec import ModelSpec

_LAYER = "model.layers.{i}"
_PERIOD = 4  # of the layers that see everything, from the first on


def config(c: Config) -> ModelSpec:
    """ModelSpec of GraniteSWAForCausalLM or GraniteMoeSWAForCausalLM; rope whose base differs by layer is refused."""
    layers = layer_count(c)
    usual = ["sliding_attention" if i % _PERIOD else "full_attention" for i in range(layers)]
    bases = c.get("layer_rope_theta") or [1.0] * layers
    if not isinstance(bases, list) or len(bases) != layers or len({base for base in bases if base}) > 1:
        raise UnsupportedError(
            f"config.json: layer_rope_theta must be 0 or the same of all {layers} layers, not {bases}"
        )
    rotated = tuple(map(bool, bases))
    base = max(bases)
    if c.get("layer_rope_theta") and base:
        c = Config({**c, "rope_parameters": {**rope_parameters(c), "rope_theta": base}})
    sizes: dict[str, Any] = {
        **decoder_sizes(c, RopeLayout.INTERLEAVED),
        **windows(Config({"sliding_window": 128, **c, "layer_types": c.get("layer_types") or usual}), period=_PERIOD),
        "rotated": () if all(rotated) else rotated,
    }
    if c.get("num_local_experts"):
        sizes |= expert_sizes(c, "intermediate_size", SOFTMAX)
        sizes |= {"shared_feed_forward": c.integer("shared_intermediate_size", default=0)}
    return ModelSpec(
        architecture="granite_swa",
        **sizes,
        scales=scales(c),
        feed_forward_bias=c.boolean("mlp_bias"),
    )


def settle(spec: ModelSpec) -> ModelSpec:
    """With the width of shared experts, of whose tensors one has two."""
    return replace(spec, shared_feed_forward=spec.shared_feed_forward // 2)


def rope_of(spec: ModelSpec, layer: int) -> Rope | None:
    """The rope of a layer."""
    return spec.rope_of(layer) if not spec.rotated or spec.rotated[layer] else None


def network(g: Graph, x: Value, layer: int) -> Value:
    """A dense network, or experts, beside a shared one."""
    s, block, n = g.spec, f"blk.{layer}", g.spec.shared_feed_forward
    if not n:
        return feed_forward(g, x, layer)
    routed = g.moe(x, g.linear(x, f"{block}.ffn_gate_inp", s.experts, role=Role.ROUTER), block)
    gate, up = parts_of(g, g.linear(x, f"{block}.ffn_up_shexp", 2 * n), (n, n))
    return g.add(routed, g.linear(g.gated(gate, up), f"{block}.ffn_down_shexp", s.width))


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`, with sinks."""
    return pre_norm_decoder(g, rope_of, sinks=True, network=network)


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """It asks for a window."""
    return "" if spec.window else "it wants windows in granite_swa"


ARCHITECTURE = Architecture(
    name="granite_swa",
    title="Granite with windows",
    hf_classes=("GraniteSWAForCausalLM", "GraniteMoeSWAForCausalLM"),
    config=config,
    wire=wire,
    names={
        **granitemoe.ARCHITECTURE.names,
        "attn_sinks.weight": Stored((f"{_LAYER}.self_attn.sinks",)),
        "ffn_up_shexp.weight": Stored((f"{_LAYER}.shared_mlp.input_linear.weight",)),
    },
    rope_layout=RopeLayout.INTERLEAVED,
    logits_divided=True,
    settle=settle,
    llama_cpp=LlamaCpp(rope_factors=True, score_scale=True, windows=True, refuses=(llama_cpp_refuses,)),
    notes="Sinks, windows in the layers that `layer_types` names, and no rope in those whose `layer_rope_theta` is 0; "
    "other bases by layer are refused. llama.cpp's own converter leaves gates and ups of experts in one tensor: such "
    "files are read as well.",
)
