"""Command R7B and A: Command R with windows in most layers, and no positions in the others.

Sources: transformers' `modeling_cohere2`; llama.cpp's `conversion/command_r.py` and `models/cohere2.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, parallel_decoder
from edgert_models.architectures.command_r import cohere_sizes
from edgert_models.config import Config, windows
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import Rope, RopeLayout
from edgert_models.spec import ModelSpec

_PERIOD = 4  # of the layers that see everything


def config(c: Config) -> ModelSpec:
    """ModelSpec of Cohere2ForCausalLM."""
    period = c.integer("sliding_window_pattern", default=_PERIOD)
    return ModelSpec(architecture="cohere2", **cohere_sizes(c), **windows(c, period=period))


def rope_of(spec: ModelSpec, layer: int) -> Rope | None:
    """The rope of a layer."""
    return spec.rope if spec.window_of(layer) else None


def wire(g: Graph) -> Plan:
    """The wiring of `parallel_decoder`."""
    return parallel_decoder(g, rope_of)


ARCHITECTURE = Architecture(
    name="cohere2",
    title="Command R7B, Command A",
    hf_classes=("Cohere2ForCausalLM",),
    config=config,
    wire=wire,
    names=COMMON_NAMES,
    rope_layout=RopeLayout.INTERLEAVED,
    checkpoint_layout=RopeLayout.INTERLEAVED,
    layer_norm=True,
    window_period=_PERIOD,
    llama_cpp=LlamaCpp(always_tied=True, as_wide=True, output_bias=False, windows=True),
    notes="Windows, and no rope in layers without one. llama.cpp loads neither an output matrix nor biases of "
    "attention, nor heads that are together not as wide as the model.",
)
