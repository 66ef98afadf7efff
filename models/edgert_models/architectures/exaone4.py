"""EXAONE-4: norms after attention and feed-forward. Where some layers have a window, the others have no positions.

Sources: transformers' `modeling_exaone4`; llama.cpp's `models/exaone4.cpp`.
"""

from __future__ import annotations

from typing import Any

from edgert_models.architecture import POST_NORM_NAMES, Architecture, post_norm_decoder
from edgert_models.config import Config, decoder_sizes, windows
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import Rope, RopeLayout
from edgert_models.spec import ModelSpec

PERIOD = 4  # of the layers that see everything


def config(c: Config) -> ModelSpec:
    """ModelSpec of Exaone4ForCausalLM."""
    sizes = {**decoder_sizes(c, RopeLayout.HALVES), "attention_bias": False, "output_bias": False}
    return ModelSpec(architecture="exaone4", **sizes, **window_sizes(c), qk_norm="head")


def window_sizes(c: Config) -> dict[str, Any]:
    """The ModelSpec fields of its windows."""
    if c.get("sliding_window") is None:
        return {}
    if c.get("layer_types") or c.get("sliding_window_pattern") == "LLLG":
        c = Config({**c, "sliding_window_pattern": PERIOD})
    return windows(c, period=max(c.integer("sliding_window_pattern", default=PERIOD), 1), kept=True)


def rope_of(spec: ModelSpec, layer: int) -> Rope | None:
    """The rope of a layer."""
    return spec.rope if not spec.window or spec.window_of(layer) else None


def wire(g: Graph) -> Plan:
    """The wiring of `post_norm_decoder`."""
    return post_norm_decoder(g, rope_of)


def llama_cpp_differs(spec: ModelSpec) -> str:
    """What llama.cpp computes otherwise."""
    if not spec.window or spec.layers == 64:
        return ""
    return "llama.cpp knows windows of exaone4 only in models of 64 layers: in this one it sees and rotates everything"


ARCHITECTURE = Architecture(
    name="exaone4",
    title="EXAONE-4",
    hf_classes=("Exaone4ForCausalLM",),
    config=config,
    wire=wire,
    names=POST_NORM_NAMES,
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    window_period=PERIOD,
    llama_cpp=LlamaCpp(as_wide=True, output_bias=False, rope_factors=True, windows=True, differs=(llama_cpp_differs,)),
    notes="Windows, and no rope in layers without one. llama.cpp knows windows only in models of 64 layers, and loads"
    " neither a bias of the attention output nor heads that are together not as wide as the model.",
)
