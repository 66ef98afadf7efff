"""OLMo 2 and OLMo 3: queries and keys normalised over their whole width, and norms after attention and feed-forward.

OLMo 3 has windows in most layers; their rope is not scaled. Sources: transformers' `modeling_olmo2`, `modeling_olmo3`;
llama.cpp's `models/olmo2.cpp` for the names in GGUF, where both are one architecture.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgert_models.architecture import POST_NORM_NAMES, Architecture, post_norm_decoder
from edgert_models.config import Config, decoder_sizes, windows
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import Rope, RopeLayout
from edgert_models.spec import ModelSpec

PERIOD = 4  # of the layers that see everything


def config(c: Config) -> ModelSpec:
    """ModelSpec of Olmo2ForCausalLM or Olmo3ForCausalLM; scaled rope within windows is refused."""
    has_windows = c["architectures"][0] == "Olmo3ForCausalLM" and c.get("sliding_window") is not None
    return ModelSpec(
        architecture="olmo2",
        **decoder_sizes(_with_one_rope(c), RopeLayout.HALVES),
        **(windows(c, period=PERIOD) if has_windows else {}),
        qk_norm="all",
    )


def _with_one_rope(c: Config) -> Config:
    """The config with the rope of layers without a window; that of the others must be the same, unscaled."""
    given = c.get("rope_parameters") or {}
    if not isinstance(given, Mapping) or not isinstance(full := given.get("full_attention"), Mapping):
        return c
    inside = given.get("sliding_attention")
    if inside != {"rope_type": "default", "rope_theta": full.get("rope_theta")}:
        raise UnsupportedError(f"config.json: rope parameters of sliding_attention must be unscaled, not {inside}")
    return Config({**c, "rope_parameters": full})


def rope_of(spec: ModelSpec, layer: int) -> Rope:
    """The rope of a layer."""
    return spec.rope.unscaled() if spec.window_of(layer) else spec.rope


def wire(g: Graph) -> Plan:
    """The wiring of `post_norm_decoder`."""
    return post_norm_decoder(g, rope_of)


ARCHITECTURE = Architecture(
    name="olmo2",
    title="OLMo 2, OLMo 3",
    hf_classes=("Olmo2ForCausalLM", "Olmo3ForCausalLM"),
    config=config,
    wire=wire,
    names=POST_NORM_NAMES,
    rope_layout=RopeLayout.HALVES,
    qk_norm="all",
    window_period=PERIOD,
    llama_cpp=LlamaCpp(own_output=True, as_wide=True, output_bias=False, windows=True),
    notes="Windows in the layers that `layer_types` names, and rope that is scaled only outside of them; scaled rope "
    "within windows is refused. llama.cpp loads neither a bias of the attention output nor heads that are "
    "together not as wide as the model.",
)
