"""ERNIE-4.5 with experts: chosen by their softmax and a bias, beside shared ones, after dense layers.

The weights of the chosen are divided by their sum, or by 1e-12 if that is less; here 1e-12 is added to it, which is the
same but where all chosen probabilities together are next to nothing. Sources: transformers' `modeling_ernie4_5_moe`;
llama.cpp's `conversion/ernie.py` and `models/ernie4-5-moe.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    FileHabits,
    expert_names,
    pre_norm_decoder,
    shared_expert_names,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, layer_count, sparse_layers
from edgert_models.nextn import Nextn, nextn_names
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.spec import ModelSpec

ROUTER = Router(epsilon=1e-12, bias=True)


def config(c: Config) -> ModelSpec:
    """ModelSpec of Ernie4_5_MoeForCausalLM; biases of matrices are refused."""
    c = Config({"rope_theta": 500000.0, "tie_word_embeddings": True, **c})
    c.refuse_unless("use_bias", (False,), default=False)
    c.refuse_unless("moe_norm_min", (1e-12,), default=1e-12)
    first, last = c.integer("moe_layer_start_index", default=1), c.integer("moe_layer_end_index", default=-1)
    layers, step = layer_count(c), c.integer("moe_layer_interval", default=1)
    last = layers - 1 if last == -1 else last
    width = c.integer("moe_intermediate_size")
    return ModelSpec(
        architecture="ernie4_5-moe",
        **{**decoder_sizes(c, RopeLayout.INTERLEAVED), "attention_bias": False, "output_bias": False},
        **expert_sizes(c, "moe_intermediate_size", ROUTER),
        **sparse_layers((i + 1) % max(step, 1) == 0 and first <= i <= last for i in range(layers)),
        shared_feed_forward=width * c.integer("moe_num_shared_experts", default=2),
    )


ARCHITECTURE = Architecture(
    name="ernie4_5-moe",
    title="ERNIE-4.5 with experts",
    hf_classes=("Ernie4_5_MoeForCausalLM",),
    config=config,
    wire=pre_norm_decoder,
    names={
        **COMMON_NAMES,
        **expert_names("mlp", bias="moe_statics.e_score_correction_bias"),
        **shared_expert_names(),
    },
    rope_layout=RopeLayout.INTERLEAVED,
    files=FileHabits(says_step=True),
    checkpoint_layout=RopeLayout.INTERLEAVED,
    router=ROUTER,
    nextn=Nextn(
        layers=("model.mtp_block.{k}",),
        names=nextn_names(
            {
                "eh_proj": "model.mtp_linear_proj.{k}",
                "enorm": "model.mtp_emb_norm.{k}",
                "hnorm": "model.mtp_hidden_norm.{k}",
            }
        ),
        in_llama_cpp=False,
    ),
    left_out=("model.mtp_",),
    notes="Biases (`use_bias`) are refused. llama.cpp knows dense layers only before the first with experts.",
)
