"""Ling 2 and Ring 2: half of each head rotated, experts in groups, by sigmoids and a bias. Sarvam: with whole heads.

Sources: the model's own `modeling_bailing_moe_v2.py`; transformers' `modeling_glm4_moe`, which computes the same, and
`modular_sarvam_moe`; llama.cpp's `conversion/bailingmoe.py` and `models/bailingmoe2.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import Architecture, FileHabits, pre_norm_decoder, stored
from edgert_models.architectures.bailingmoe import BAILING_NAMES, attention_sizes, shared_width
from edgert_models.config import Config, biased_sigmoid, expert_sizes, leading_dense_layers
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.nextn import AFTER_THE_LAST
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID
from edgert_models.spec import ModelSpec

_LAYER = "model.layers.{i}"
_SARVAM = "SarvamMoEForCausalLM"


def config(c: Config) -> ModelSpec:
    """ModelSpec of BailingMoeV2ForCausalLM and SarvamMoEForCausalLM; heads that are not normalised are refused."""
    c.refuse_unless("use_qk_norm", (True,), default=True)
    c.refuse_unless("score_function", ("sigmoid",), default="sigmoid")
    sarvam = c.get("architectures") == [_SARVAM]
    c = Config({"partial_rotary_factor": 1.0 if sarvam else 0.5, "routed_scaling_factor": 2.5, **c})
    return ModelSpec(
        architecture="bailingmoe2",
        **attention_sizes(c, RopeLayout.HALVES),
        **expert_sizes(c, "moe_intermediate_size", biased_sigmoid(c)),
        **leading_dense_layers(c),
        shared_feed_forward=shared_width(c),
        qk_norm="head",
        fused_attention=True,
    )


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    return "it knows no biases in bailingmoe2" if spec.attention_bias else ""


ARCHITECTURE = Architecture(
    name="bailingmoe2",
    title="Ling 2, Ring 2, Sarvam",
    hf_classes=("BailingMoeV2ForCausalLM", _SARVAM),
    config=config,
    wire=pre_norm_decoder,
    names={
        **BAILING_NAMES,
        **stored(
            attn_qkv=f"{_LAYER}.attention.query_key_value",
            attn_q_norm=f"{_LAYER}.attention.query_layernorm",
            attn_k_norm=f"{_LAYER}.attention.key_layernorm",
            layer_output_norm=f"{_LAYER}.final_layernorm",
        ),
    },
    rope_layout=RopeLayout.HALVES,
    files=FileHabits(width_of_one=True),
    qk_norm="head",
    router=BIASED_SIGMOID,
    nextn=AFTER_THE_LAST,
    llama_cpp=LlamaCpp(own_output=True, as_wide=True, refuses=(llama_cpp_refuses,)),
    notes="llama.cpp loads neither biases nor heads that are together not as wide as the model.",
)
