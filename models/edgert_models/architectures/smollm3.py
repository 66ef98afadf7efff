"""SmolLM3: Llama's decoder, without positions in every fourth layer.

Sources: transformers' `modeling_smollm3`; llama.cpp's `models/smollm3.cpp`, which knows no other order of such layers.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes, layer_count, optional_windows
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import Rope, RopeLayout
from edgert_models.spec import ModelSpec

_PERIOD = 4


def config(c: Config) -> ModelSpec:
    """ModelSpec of SmolLM3ForCausalLM; where it has windows, the layers without rope have one."""
    c = Config({"rope_theta": 2000000.0, "tie_word_embeddings": True, "sliding_window": None, **c})
    rotated = _rotated(c)
    return ModelSpec(
        architecture="smollm3",
        **decoder_sizes(c, RopeLayout.INTERLEAVED),
        **optional_windows(c, lambda i: not rotated[i]),
        feed_forward_bias=c.boolean("mlp_bias"),
        rotated=() if rotated == _usual(len(rotated)) else rotated,
    )


def _rotated(c: Config) -> tuple[bool, ...]:
    """Of every layer whether it has rope, which is what `no_rope_layers` says of it."""
    layers, period = layer_count(c), c.integer("no_rope_layer_interval", default=_PERIOD)
    given = c.get("no_rope_layers")
    if given is None:
        return _usual(layers, max(period, 1))
    if not isinstance(given, list) or len(given) != layers or not set(given) <= {0, 1}:
        raise UnsupportedError(f"config.json: no_rope_layers must say 0 or 1 of each of {layers} layers, not {given}")
    return tuple(map(bool, given))


def _usual(layers: int, period: int = _PERIOD) -> tuple[bool, ...]:
    return tuple((i + 1) % period != 0 for i in range(layers))


def rope_of(spec: ModelSpec, layer: int) -> Rope | None:
    """The rope of a layer."""
    return spec.rope if (spec.rotated or _usual(spec.layers))[layer] else None


def llama_cpp_differs(spec: ModelSpec) -> str:
    """What llama.cpp computes otherwise."""
    return f"llama.cpp takes every {_PERIOD}th layer of smollm3 as one without rope" if spec.rotated else ""


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`."""
    return pre_norm_decoder(g, rope_of)


ARCHITECTURE = Architecture(
    name="smollm3",
    title="SmolLM3",
    hf_classes=("SmolLM3ForCausalLM",),
    config=config,
    wire=wire,
    names=COMMON_NAMES,
    rope_layout=RopeLayout.INTERLEAVED,
    llama_cpp=LlamaCpp(output_bias=False, feed_forward_bias=False, differs=(llama_cpp_differs,)),
    notes="No rope in every fourth layer, or in those that `no_rope_layers` names, and sliding windows "
    "(`use_sliding_window`) are honoured. llama.cpp takes every fourth layer as one without rope, attends to "
    "everything, and loads no biases of the attention output and the feed-forward network.",
)
