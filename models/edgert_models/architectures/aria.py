"""Aria's text model: Llama's attention, and experts beside shared ones in every layer.

The name in GGUF is ours, as llama.cpp has no such architecture. Source: transformers' `modeling_aria`; checkpoints have
experts transposed, gates before ups.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, pre_norm_decoder, shared_expert_names, stored
from edgert_models.config import Config, decoder_sizes, expert_sizes
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import SOFTMAX
from edgert_models.sources import TransposedExperts
from edgert_models.spec import ModelSpec

_MLP = "model.layers.{i}.mlp"


def config(c: Config) -> ModelSpec:
    """ModelSpec of AriaTextForCausalLM; biases of the shared experts are refused."""
    c.refuse_unless("mlp_bias", (False,), default=False)
    return ModelSpec(
        architecture="aria",
        **decoder_sizes(c, RopeLayout.HALVES),
        **expert_sizes(c, "intermediate_size", SOFTMAX),
        shared_feed_forward=c.integer("intermediate_size") * c.integer("moe_num_shared_experts", default=2),
    )


ARCHITECTURE = Architecture(
    name="aria",
    title="Aria, text",
    hf_classes=("AriaTextForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names={
        **COMMON_NAMES,
        **stored(ffn_gate_inp=f"{_MLP}.router"),
        **shared_expert_names(),
        "ffn_gate_exps.weight": TransposedExperts((f"{_MLP}.experts.fc1.weight",), 0, 2, in_turns=False),
        "ffn_up_exps.weight": TransposedExperts((f"{_MLP}.experts.fc1.weight",), 1, 2, in_turns=False),
        "ffn_down_exps.weight": TransposedExperts((f"{_MLP}.experts.fc2.weight",)),
    },
    rope_layout=RopeLayout.HALVES,
    llama_cpp=LlamaCpp(known=False),
    notes="The text model by itself; biases of the shared experts are refused. The name in GGUF is ours: llama.cpp has "
    "no such architecture.",
)
