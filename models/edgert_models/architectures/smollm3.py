"""SmolLM3: Llama's decoder, without positions in every fourth layer.

Sources: transformers' `modeling_smollm3`; llama.cpp's `models/smollm3.cpp`, which knows no other order of such layers.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import Rope, RopeLayout
from edgert_models.spec import ModelSpec

_PERIOD = 4


def config(c: Config) -> ModelSpec:
    """ModelSpec of SmolLM3ForCausalLM; sliding windows and another order of layers without rope are refused."""
    c = Config({"rope_theta": 2000000.0, "tie_word_embeddings": True, **c})
    c.refuse_unless("use_sliding_window", (False,), default=False)
    c.refuse_unless("no_rope_layer_interval", (_PERIOD,), default=_PERIOD)
    spec = ModelSpec(
        architecture="smollm3",
        **decoder_sizes(c, RopeLayout.INTERLEAVED),
        feed_forward_bias=c.boolean("mlp_bias"),
    )
    if c.get("no_rope_layers") not in (None, [int(rope_of(spec, i) is not None) for i in range(spec.layers)]):
        raise UnsupportedError(f"config.json: no_rope_layers must be every {_PERIOD}th layer")
    return spec


def rope_of(spec: ModelSpec, layer: int) -> Rope | None:
    """The rope of a layer."""
    return spec.rope if (layer + 1) % _PERIOD else None


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
    llama_cpp=LlamaCpp(output_bias=False, feed_forward_bias=False),
    notes="No rope in every fourth layer; other `no_rope_layers` and sliding windows are refused. llama.cpp loads no "
    "biases of the attention output and the feed-forward network.",
)
