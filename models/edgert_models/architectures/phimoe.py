"""Phi-3.5-MoE: Mixtral's decoder with layer norms, biases, and experts weighed by a sparse mixer.

Sources: transformers' `modeling_phimoe`; llama.cpp's `conversion/phi.py` and `models/phimoe.cpp` for the names in GGUF.
"""

from __future__ import annotations

from typing import Any

from edgert_models.architecture import COMMON_NAMES, Architecture, FileHabits, expert_names, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes, expert_sizes
from edgert_models.errors import UnsupportedError
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout, rope_parameters
from edgert_models.router import Router
from edgert_models.sources import Stored
from edgert_models.spec import ModelSpec

ROUTER = Router(scoring="sparsemixer", normalize=False, band=0.02)
_GATE = "model.layers.{i}.block_sparse_moe.gate.weight"


def config(c: Config) -> ModelSpec:
    """ModelSpec of PhimoeForCausalLM; another width of the mixer's band, and magnitudes that differ are refused."""
    c.refuse_unless("router_jitter_noise", (0.01,), default=0.01)
    c.refuse_unless("num_experts_per_tok", (2,), default=2)
    window: dict[str, Any] = {"window": c.integer("sliding_window")} if c.get("sliding_window") is not None else {}
    return ModelSpec(
        architecture="phimoe",
        **decoder_sizes(_with_magnitude(c), RopeLayout.HALVES),
        **expert_sizes(Config({"num_experts_per_tok": 2, **c}), "intermediate_size", ROUTER),
        **window,
        layer_norm=True,
        norm_bias=True,
        logits_bias=c.boolean("lm_head_bias"),
    )


def _with_magnitude(c: Config) -> Config:
    """The config with the magnitude of rope under the name that it has elsewhere."""
    given = rope_parameters(c)
    if given.get("short_mscale") is None:
        return c
    if given.get("long_mscale") != given["short_mscale"]:
        raise UnsupportedError("config.json: rope parameters short_mscale and long_mscale must be the same")
    return Config({**c, "rope_parameters": {**given, "attention_factor": given["short_mscale"]}})


def llama_cpp_differs(spec: ModelSpec) -> str:
    """What llama.cpp computes otherwise."""
    return "llama.cpp does not subtract the mean in norms of phimoe, and weighs experts otherwise than the model"


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    biased = spec.output_bias and spec.logits_bias
    return "" if biased else "it wants biases of the attention output and of the output matrix in phimoe"


ARCHITECTURE = Architecture(
    name="phimoe",
    title="Phi-3.5-MoE",
    hf_classes=("PhimoeForCausalLM", "PhiMoEForCausalLM"),
    config=config,
    wire=pre_norm_decoder,
    names={
        **COMMON_NAMES,
        **expert_names("block_sparse_moe", gate="w1", up="w3", down="w2"),
        "ffn_gate_inp.weight": Stored((_GATE, "model.layers.{i}.mlp.router.weight")),
    },
    rope_layout=RopeLayout.HALVES,
    files=FileHabits(rms_epsilon=True),
    router=ROUTER,
    layer_norm=True,
    llama_cpp=LlamaCpp(own_output=True, as_wide=True, refuses=(llama_cpp_refuses,), differs=(llama_cpp_differs,)),
    notes="llama.cpp computes something else: norms without the mean, and the softmax of the two chosen experts.",
)
