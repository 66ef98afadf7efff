"""Granite-MoE: Granite with experts in every layer, and maybe with a shared one beside them.

Checkpoints have the experts' gates and ups in one tensor, those of earlier transformers under other names. Sources:
transformers' `modeling_granitemoe`; llama.cpp's `conversion/granite.py` and `models/granite-moe.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder
from edgert_models.architectures.granite import scales
from edgert_models.config import Config, decoder_sizes, expert_sizes
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import SOFTMAX
from edgert_models.sources import Experts, Source, Stored
from edgert_models.spec import ModelSpec

_SHARED = "model.layers.{i}.shared_mlp"
_BLOCK = "model.layers.{i}.block_sparse_moe"


def config(c: Config) -> ModelSpec:
    """ModelSpec of GraniteMoeForCausalLM or GraniteMoeSharedForCausalLM."""
    return ModelSpec(
        architecture="granitemoe",
        **decoder_sizes(c, RopeLayout.INTERLEAVED),
        **expert_sizes(c, "intermediate_size", SOFTMAX),
        shared_feed_forward=c.integer("shared_intermediate_size", default=0),
        scales=scales(c),
    )


def _experts(new: str, old: str, part: int, parts: int) -> Source:
    return Experts((), (f"{_BLOCK}.experts.{new}", f"{_BLOCK}.{old}.weight"), part, parts)


ARCHITECTURE = Architecture(
    name="granitemoe",
    title="Granite-MoE",
    hf_classes=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    config=config,
    wire=pre_norm_decoder,
    names={
        **COMMON_NAMES,
        "ffn_gate_inp.weight": Stored((f"{_BLOCK}.router.weight", f"{_BLOCK}.router.layer.weight")),
        "ffn_gate_exps.weight": _experts("gate_up_proj", "input_linear", 0, 2),
        "ffn_up_exps.weight": _experts("gate_up_proj", "input_linear", 1, 2),
        "ffn_down_exps.weight": _experts("down_proj", "output_linear", 0, 1),
        "ffn_gate_shexp.weight": Stored((f"{_SHARED}.input_linear.weight",), 0, 2),
        "ffn_up_shexp.weight": Stored((f"{_SHARED}.input_linear.weight",), 1, 2),
        "ffn_down_shexp.weight": Stored((f"{_SHARED}.output_linear.weight",)),
    },
    rope_layout=RopeLayout.INTERLEAVED,
    logits_divided=True,
    llama_cpp=LlamaCpp(rope_factors=True, score_scale=True),
)
