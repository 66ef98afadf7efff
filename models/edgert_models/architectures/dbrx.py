"""DBRX: layer norms without biases, one product for clamped queries, keys and values, and experts in every layer.

Sources: transformers' `modeling_dbrx`, whose checkpoints have the matrices of all experts one below another;
llama.cpp's `conversion/dbrx.py` and `models/dbrx.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from edgert_models.architecture import ROPE_NAMES, Architecture, pre_norm_decoder, stored
from edgert_models.config import Config, decoder_sizes
from edgert_models.errors import UnsupportedError
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.sources import Experts, TransposedExperts
from edgert_models.spec import ModelSpec, Scales

_EPSILON = 1e-5  # which the config does not say
_LAYER = "transformer.blocks.{i}"
_FFN = f"{_LAYER}.ffn"


def config(c: Config) -> ModelSpec:
    """ModelSpec of DbrxForCausalLM; weights of experts that are normalised otherwise than to a sum of 1 are refused."""
    attention, ffn = _part(c, "attn_config"), _part(c, "ffn_config")
    kind = _part(Config({"ffn_act_fn": {"name": "silu"}, **ffn}), "ffn_act_fn")
    Config({"hidden_act": kind.get("name")}).refuse_other_activations("silu")
    ffn.refuse_unless("moe_normalize_expert_weights", (1, None), default=None)
    clamp = attention.get("clip_qkv")
    names = {
        "hidden_size": c.integer("d_model", "hidden_size"),
        "num_hidden_layers": c.integer("n_layers", "num_hidden_layers"),
        "num_attention_heads": c.integer("n_heads", "num_attention_heads"),
        "num_key_value_heads": attention.integer("kv_n_heads", default=1),
        "max_position_embeddings": c.integer("max_seq_len", "max_position_embeddings"),
        "rms_norm_eps": _EPSILON,
    }
    base = attention.number("rope_theta", default=10000.0)  # which transformers passes over since it writes its own
    return ModelSpec(
        architecture="dbrx",
        **decoder_sizes(Config({"rope_theta": base, **c, **names}), RopeLayout.HALVES),
        experts=ffn.integer("moe_num_experts", default=4),
        experts_used=ffn.integer("moe_top_k", default=1),
        expert_feed_forward=ffn.integer("ffn_hidden_size", default=3584),
        router=Router(normalize=ffn.get("moe_normalize_expert_weights", 1) is not None),
        scales=Scales(clamp=None if clamp is None else attention.number("clip_qkv")),
        layer_norm=True,
        fused_attention=True,
    )


def _part(c: Config, key: str) -> Config:
    found = c.get(key) or {}
    if not isinstance(found, Mapping):
        raise UnsupportedError(f"config.json: {key} must be an object, not {type(found).__name__}")
    return Config(found)


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    return "it wants clamped queries, keys and values in dbrx" if spec.scales.clamp is None else ""


ARCHITECTURE = Architecture(
    name="dbrx",
    title="DBRX",
    hf_classes=("DbrxForCausalLM",),
    config=config,
    wire=partial(pre_norm_decoder, ffn_norm="attn_output_norm"),
    names={
        **stored(
            token_embd="transformer.wte",
            output_norm="transformer.norm_f",
            output="lm_head",
            attn_norm=f"{_LAYER}.norm_attn_norm.norm_1",
            attn_qkv=f"{_LAYER}.norm_attn_norm.attn.Wqkv",
            attn_output=f"{_LAYER}.norm_attn_norm.attn.out_proj",
            attn_output_norm=f"{_LAYER}.norm_attn_norm.norm_2",
            ffn_gate_inp=f"{_FFN}.router.layer",
        ),
        **ROPE_NAMES,
        "ffn_gate_exps.weight": Experts((), (f"{_FFN}.experts.mlp.w1",)),
        "ffn_up_exps.weight": Experts((), (f"{_FFN}.experts.mlp.v1",)),
        "ffn_down_exps.weight": TransposedExperts((f"{_FFN}.experts.mlp.w2",)),
    },
    rope_layout=RopeLayout.HALVES,
    layer_norm=True,
    llama_cpp=LlamaCpp(own_output=True, normalizes=True, refuses=(llama_cpp_refuses,)),
    notes="`clip_qkv` is honoured; weights of experts that are normalised otherwise than to a sum of 1 are refused. "
    "llama.cpp always normalises them, and loads no model without `clip_qkv`. The base of rope is that of "
    "`rope_parameters`, as in `transformers`, or of `attn_config` where a config has no other; llama.cpp's own "
    "converter takes the latter.",
)
