"""Mellum 2: Qwen3-MoE with windows in some layers, whose rope is another one.

Sources: transformers' `modeling_mellum`; llama.cpp's `conversion/mellum.py` and `models/mellum.cpp`.
"""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architecture import COMMON_NAMES, Architecture, expert_names, pre_norm_decoder
from edgert_models.config import Config, decoder_sizes, expert_sizes, mlp_layers, windows
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.spec import ModelSpec

_PERIOD = 4  # of the layers that see everything, in files that do not say


def settle(spec: ModelSpec) -> ModelSpec:
    """The spec with the rope of layers with a window, which is never scaled."""
    return replace(spec, window_rope=spec.window_rope or spec.rope.unscaled()) if spec.window else spec


def config(c: Config) -> ModelSpec:
    """ModelSpec of MellumForCausalLM."""
    return settle(
        ModelSpec(
            architecture="mellum",
            **decoder_sizes(c, RopeLayout.HALVES, partial=True),
            **expert_sizes(c, "moe_intermediate_size", Router(normalize=c.boolean("norm_topk_prob", True))),
            **mlp_layers(c),
            **windows(c, period=1),
            qk_norm="head",
        )
    )


def llama_cpp_differs(spec: ModelSpec) -> str:
    """What llama.cpp computes otherwise."""
    other = spec.window_rope is not None and spec.window_rope.base != spec.rope.base
    return "llama.cpp turns positions in layers with a window of mellum by the base of the others" if other else ""


ARCHITECTURE = Architecture(
    name="mellum",
    title="Mellum 2",
    hf_classes=("MellumForCausalLM",),
    config=config,
    settle=settle,
    wire=pre_norm_decoder,
    names={**COMMON_NAMES, **expert_names("mlp")},
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    window_period=_PERIOD,
    llama_cpp=LlamaCpp(
        own_output=True,
        output_bias=False,
        dense_layers="none",
        windows=True,
        normalizes=True,
        differs=(llama_cpp_differs,),
    ),
    notes="llama.cpp takes the base of rope from the layers without a window in those with one, always normalises the"
    " weights of experts, and loads neither dense layers nor tied embeddings nor a bias of the attention "
    "output.",
)
