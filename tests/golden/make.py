"""Makes the golden checkpoints beside this file: tiny random models of `transformers`, and the logits it computes.

Run with the dependency group `demo`: `python tests/golden/make.py [name …]`. Each folder gets config.json,
model.safetensors and logits.npz: `tokens` int64 [sequences, length], `logits` float32 [sequences, length, vocabulary],
computed in float32 with eager attention from the weights as they are stored.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.golden import disguises, grok

HERE = Path(__file__).parent
SEQUENCES, LENGTH = 2, 16
SMALLEST_GAP = 0.04  # between the router's logits of the last expert chosen and the first one not
SMALL = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
DENSE = {"intermediate_size": 96, "tie_word_embeddings": False}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "tie_word_embeddings": False}


@dataclass(frozen=True)
class Golden:
    """One checkpoint: model class (`text`: the part of it that is for text), what its config overrides, how it is
    stored; `zero_centred`: norms are what they differ by from one; `prepare` and `disguise` make it one of another
    family.
    """

    family: str
    config: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.bfloat16
    fused: bool = False
    mxfp4: bool = False
    zero_centred: bool = False
    text: bool = False
    gains: dict[str, float] = field(default_factory=dict)
    shard_size: str | None = None
    disguise: Callable[[Path], None] | None = None
    prepare: Callable[[torch.nn.Module], None] = lambda model: None


def qwen3moe(**changes: Any) -> dict[str, Any]:
    return {**SMALL, **EXPERTS, "head_dim": 32, "moe_intermediate_size": 32, "norm_topk_prob": True, **changes}


def qwen2moe(**changes: Any) -> dict[str, Any]:
    own = {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 48, "norm_topk_prob": False}
    return {**SMALL, **EXPERTS, **own, **changes}


def rope(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


def gpt_oss(**scaling: Any) -> dict[str, Any]:
    """Heads that are together wider than the model, and a window that is shorter than the sequences."""
    sizes = {"intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 32}
    return {**SMALL, **sizes, "sliding_window": 5, **rope("yarn", factor=4.0, truncate=False, **scaling)}


def olmo3(**changes: Any) -> dict[str, Any]:
    """Layers with a window that is shorter than the sequences, and one without."""
    return {**SMALL, **DENSE, "num_hidden_layers": 5, "intermediate_size": 48, "sliding_window": 5, **changes}


def mellum(base: float, **changes: Any) -> dict[str, Any]:
    """A layer with a window and a base of its own, and one without."""
    scaled = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
    rope = {"sliding_attention": {"rope_type": "default", "rope_theta": base}, "full_attention": scaled}
    kinds = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5, "rope_parameters": rope}
    return {**qwen3moe(head_dim=16), **kinds, "intermediate_size": 48, **changes}


def cohere2moe(**changes: Any) -> dict[str, Any]:
    """A dense layer without a window, and a sparse one with one."""
    experts = {
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "intermediate_size": 32,
        "prefix_dense_intermediate_size": 48,
    }
    kinds = {"layer_types": ["full_attention", "sliding_attention"], "mlp_layer_types": ["dense", "sparse"]}
    own = {"sliding_window": 5, "head_dim": 16, "tie_word_embeddings": False}
    return {**cohere(), **experts, **kinds, **own, **changes}


def phimoe() -> dict[str, Any]:
    factors = {"short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [2.0 + i for i in range(8)]}
    scaled = rope("longrope", **factors, short_mscale=1.3, long_mscale=1.3, original_max_position_embeddings=1024)
    biases = {"attention_bias": True, "lm_head_bias": True, "max_position_embeddings": 4096}
    return {**SMALL, **scaled, **biases, "intermediate_size": 32, "num_local_experts": 6, "num_experts_per_tok": 2}


FLINT = {
    "head_dim": 16,
    "intermediate_size": 48,
    "mlp_only_layers": [0],
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention"],
}


def phi3(original: int, **changes: Any) -> dict[str, Any]:
    """Rope of three quarters of each head, scaled in one way up to the original context and in another beyond."""
    factors = {"short_factor": [1.0 + 0.1 * i for i in range(9)], "long_factor": [2.0 + 3.0 * i for i in range(9)]}
    scaled = rope("longrope", **factors, original_max_position_embeddings=original, partial_rotary_factor=0.75)
    sizes = {"hidden_size": 96, "original_max_position_embeddings": original}
    return {**SMALL, **DENSE, **sizes, **scaled, **changes}


def glm4() -> dict[str, Any]:
    return {**SMALL, **DENSE, "head_dim": 32, "attention_bias": True, **rope("default", partial_rotary_factor=0.5)}


GLM4_GAINS = {"post_self_attn_layernorm": 0.15, "post_mlp_layernorm": 0.15}


def cohere(**changes: Any) -> dict[str, Any]:
    return {**SMALL, "intermediate_size": 96, "layer_norm_eps": 1e-3, "logit_scale": 0.3, **changes}


def gemma(**changes: Any) -> dict[str, Any]:
    """Heads that are together wider than the model."""
    return {**SMALL, "intermediate_size": 80, "head_dim": 32, **changes}


def gemma4(**changes: Any) -> dict[str, Any]:
    """Larger heads in layers without a window."""
    sizes = {"head_dim": 16, "global_head_dim": 32, "hidden_size_per_layer_input": 0, "sliding_window": 5}
    return {**gemma(), **sizes, "final_logit_softcapping": 30.0, **changes}


GEMMA4_LAYERS = ["sliding_attention", "sliding_attention", "full_attention"]
GEMMA4_MOE = {
    "enable_moe_block": True,
    "num_experts": 6,
    "top_k_experts": 2,
    "moe_intermediate_size": 32,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
}
GEMMA4_GAINS = {
    "q_norm": 0.5,
    "k_norm": 0.5,
    "post_attention_layernorm": 1.2,
    "post_feedforward_layernorm": 1.2,
    "router.scale": 1.0,
    "router.per_expert_scale": 1.0,
    "router.": 12.0,  # the width divides
}
GEMMA2 = {
    "sliding_window": 5,
    "query_pre_attn_scalar": 32,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 30.0,
}
GEMMA3 = {
    "sliding_window": 5,
    "query_pre_attn_scalar": 32,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
    },
}
# Embeddings are scaled by 8.
GEMMA_GAINS = {"post_attention_layernorm": 1.2, "post_feedforward_layernorm": 1.2}
GEMMA3_LAYERS = ["full_attention", "sliding_attention"]


def granite(**changes: Any) -> dict[str, Any]:
    """Factors that all matter."""
    factors = {
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.4,
        "residual_multiplier": 0.7,
        "logits_scaling": 1.7,
    }
    return {**SMALL, **factors, "tie_word_embeddings": False, **changes}


def granite_swa(**changes: Any) -> dict[str, Any]:
    """A layer without a window, and one with one."""
    return granite(sliding_window=5, layer_types=["full_attention", "sliding_attention"], **changes)


GRANITE_MOE = {"intermediate_size": 32, "num_local_experts": 6, "num_experts_per_tok": 2}


def lfm2(**changes: Any) -> dict[str, Any]:
    """Short convolutions before and after attention; feed-forward networks of the width that the config says."""
    own = {"block_auto_adjust_ff_dim": False, "block_multiple_of": 16, "norm_eps": 1e-5, "tie_word_embeddings": True}
    kinds = ["conv", "full_attention", "conv"]
    changes = {"layer_types": kinds, **changes}
    return {**SMALL, "intermediate_size": 96, **own, "num_hidden_layers": len(changes["layer_types"]), **changes}


def delta_net(**changes: Any) -> dict[str, Any]:
    """Layers with a delta net before and after one that attends."""
    own = {
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "head_dim": 16,
        "num_hidden_layers": 3,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        **rope("default", partial_rotary_factor=0.5),
    }
    return {**SMALL, **own, "tie_word_embeddings": False, **changes}


def lara_mini() -> dict[str, Any]:
    """A delta net, attention within a window, and attention without positions."""
    kinds = ["linear_attention", "sliding_attention", "full_attention"]
    return {**delta_net(**DELTA_EXPERTS), "layer_types": kinds, "sliding_window": 5, "norm_topk_prob": True}


DELTA_EXPERTS = {**EXPERTS, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 32}
MROPE = rope("default", partial_rotary_factor=0.5, mrope_section=[2, 1, 1], mrope_interleaved=True)


def latent(**changes: Any) -> dict[str, Any]:
    """Latent attention, a dense layer, and one with experts and shared ones."""
    heads = {"kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 24}
    experts = {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "n_shared_experts": 2}
    own = {"num_key_value_heads": 4, "intermediate_size": 80, "q_lora_rank": None, "first_k_dense_replace": 1}
    return {**SMALL, **heads, **experts, **own, **changes}


def delta_channels(**changes: Any) -> dict[str, Any]:
    """A delta net that decays by channel, and latent attention."""
    own = {**latent(), "layer_types": ["linear_attention", "full_attention"], "num_experts_per_tok": 2}
    own |= {"num_local_experts": 8, "n_shared_experts": 1, "moe_intermediate_size": 16, "intermediate_size": 48}
    left = {"n_routed_experts", "first_k_dense_replace"}
    return {**{key: value for key, value in own.items() if key not in left}, **changes}


def deepseek_yarn(scale: float) -> dict[str, Any]:
    """As DeepSeek's configs have it."""
    every = {"mscale": scale, "mscale_all_dim": scale, "original_max_position_embeddings": 16}
    return rope("yarn", factor=4.0, beta_fast=32.0, beta_slow=1.0, **every)


def mamba(**changes: Any) -> dict[str, Any]:
    """Mamba 2 before and after a layer that attends."""
    sizes = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_d_conv": 4}
    return {**SMALL, **sizes, "mamba_expand": 2, "num_hidden_layers": 3, "tie_word_embeddings": False, **changes}


def llama4(**changes: Any) -> dict[str, Any]:
    """Chunks that are shorter than the sequences, in all but the second layer; scales that matter there."""
    sizes = {"intermediate_size": 32, "intermediate_size_mlp": 48, "head_dim": 16, "num_local_experts": 6}
    own = {"no_rope_layers": [1, 0], "attention_chunk_size": 6, "floor_scale": 5, "attn_scale": 0.5}
    return {**SMALL, **sizes, **own, **rope("default"), **changes}


def llama4_dense_layers() -> dict[str, Any]:
    """Four layers, as large as chunks are in Scout."""
    plain = {"no_rope_layers": None, "attention_chunk_size": 8192, "floor_scale": 8192, "attn_scale": 0.1}
    experts = {"num_experts_per_tok": 2, "interleave_moe_layer_step": 2, "num_local_experts": 4}
    return llama4(num_hidden_layers=4, **plain, **experts)


def dbrx(**attention: Any) -> dict[str, Any]:
    """Queries, keys and values of which some are clamped."""
    sizes = {"vocab_size": 96, "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}
    experts = {"ffn_hidden_size": 32, "moe_num_experts": 6, "moe_top_k": 2}
    parts = {"attn_config": {"kv_n_heads": 2, "clip_qkv": 1.0, "rope_theta": 1e4, **attention}, "ffn_config": experts}
    return {**sizes, **parts, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def falcon_h1(**changes: Any) -> dict[str, Any]:
    """Factors that all matter."""
    sizes = {"mamba_d_ssm": 96, "mamba_n_heads": 6, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_chunk_size": 8}
    factors = {
        **{f"{part}_multiplier": 0.7 + 0.1 * i for i, part in enumerate(("key", "attention_in", "attention_out"))},
        "ssm_in_multiplier": 1.1,
        "ssm_out_multiplier": 1.2,
        "embedding_multiplier": 1.3,
        "lm_head_multiplier": 0.6,
        "mlp_multipliers": [1.2, 0.8],
        "ssm_multipliers": [0.8, 0.9, 1.1, 1.2, 1.3],
    }
    return {**SMALL, **DENSE, **sizes, **factors, "intermediate_size": 64, "head_dim": 16, **changes}


def nemotron(*kinds: str, **changes: Any) -> dict[str, Any]:
    """Layers that are each one thing."""
    sizes = {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 16, "n_groups": 2, "head_dim": 16}
    own = {"layers_block_type": list(kinds), "intermediate_size": 96, "moe_shared_expert_intermediate_size": 48}
    base = {key: value for key, value in SMALL.items() if key != "num_hidden_layers"}
    return {**base, **sizes, **own, "num_experts_per_tok": 2, "routed_scaling_factor": 1.5, **changes}


# Yarn interpolates between the first and the last pair, whether they are rounded to whole ones or not.
ALL_PAIRS = {"rope_theta": 4.0, "original_max_position_embeddings": 128}
SOME_PAIRS = {"original_max_position_embeddings": 16, "beta_fast": 8.0, "beta_slow": 0.5}
# Gates and ups that are often clamped.
GPT_OSS_GAINS = {"gate_up_proj": 3.0, "down_proj": 0.06}
OLMO3 = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "attention_factor": 1.3,
    },
}
LFM2_GAINS = {"w2": 0.3, "out_proj": 0.2, "embedding_norm": 1.0}
NEMOTRON_GAINS = {"embeddings": 8.0, "out_proj": 0.1, "o_proj": 0.1, "mixer.gate": 1.5, "down_proj": 0.15}
MAMBA_GAINS = {"out_proj": 0.2, "output_linear": 0.3}
DBRX_GAINS = {"Wqkv": 1.2, "out_proj": 0.2, "wte": 8.0, "router.layer": 1.5, "mlp.w2": 0.1}
DELTA_GAINS = {"out_proj": 0.2, "in_proj_a": 1.5, "in_proj_ba": 1.5}
NO_WINDOW = {"sliding_window": None, "layer_types": ["full_attention"] * 2}
# Norms after attention and feed-forward say how much a layer adds.
POST_NORM = {"post_attention_layernorm": 0.15, "post_feedforward_layernorm": 0.15}
LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
BIASED = {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "n_shared_experts": 2}
GROUPS = {"n_group": 4, "topk_group": 2}
# The latent's norm makes keys large: scores are sharp anyway.
LATENT_GAINS = {"q_proj": 0.7, "q_b_proj": 0.7, "kv_b_proj": 0.7, "kv_a_layernorm": 0.7}
CHANNEL_GAINS = {**LATENT_GAINS, "o_proj": 0.1}
NO_GATES = {"shared_expert_gate": 0.0}
PLAIN = qwen2moe(qkv_bias=False, shared_expert_intermediate_size=64)
PLAIN_DEEPSEEK = {**PLAIN, "num_key_value_heads": 4, "mlp_only_layers": [0], "intermediate_size": 96}
PLAIN_BAILING = {**PLAIN, "norm_topk_prob": True}
GOLDENS = {
    "qwen3moe": Golden("Qwen3Moe", qwen3moe()),
    "qwen3moe-plain-weights": Golden("Qwen3Moe", qwen3moe(norm_topk_prob=False, num_experts_per_tok=3)),
    "qwen3moe-fused": Golden("Qwen3Moe", qwen3moe(tie_word_embeddings=True), fused=True),
    "qwen3moe-sharded": Golden("Qwen3Moe", qwen3moe(moe_intermediate_size=16), shard_size="60KB"),
    "qwen3moe-dense-layers": Golden(
        "Qwen3Moe", qwen3moe(num_hidden_layers=3, decoder_sparse_step=2, intermediate_size=48)
    ),
    "olmo2": Golden("Olmo2", {**SMALL, **DENSE}, gains=POST_NORM),
    "olmo3": Golden("Olmo3", olmo3(), gains=POST_NORM),
    "olmo3-yarn": Golden(
        "Olmo3",
        olmo3(num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"], rope_parameters=OLMO3),
        gains=POST_NORM,
    ),
    "flex-olmo": Golden("FlexOlmo", {**SMALL, **EXPERTS, "intermediate_size": 32}, gains=POST_NORM),
    "exaone4": Golden("Exaone4", {**SMALL, **DENSE, **NO_WINDOW, **LLAMA3}, gains=POST_NORM),
    "exaone4-windows": Golden(
        "Exaone4",
        {**SMALL, **DENSE, "sliding_window": 5, "layer_types": ["full_attention", "sliding_attention"]},
        gains=POST_NORM,
    ),
    "smollm3": Golden("SmolLM3", {**SMALL, "num_hidden_layers": 5, "intermediate_size": 48}),
    "seed-oss": Golden("SeedOss", {**SMALL, **DENSE, "head_dim": 32}),
    "ernie4.5": Golden("Ernie4_5", {**SMALL, **DENSE, "head_dim": 32, "tie_word_embeddings": True}),
    "ernie4.5-biased": Golden("Ernie4_5", {**SMALL, **DENSE, "head_dim": 16, "use_bias": True}),
    "hunyuan-dense": Golden(
        "HunYuanDenseV1", {**SMALL, **DENSE, "head_dim": 32, **rope("dynamic", alpha=50.0, factor=1.0)}
    ),
    "lfm2": Golden("Lfm2", lfm2(), gains=LFM2_GAINS),
    "lfm2-adjusted": Golden(
        "Lfm2",
        lfm2(conv_L_cache=4, layer_types=["full_attention", "conv"], block_auto_adjust_ff_dim=True),
        gains=LFM2_GAINS,
    ),
    "granitehybrid": Golden(
        "GraniteMoeHybrid",
        granite(
            **mamba(
                num_local_experts=6,
                num_experts_per_tok=2,
                intermediate_size=16,
                shared_intermediate_size=32,
                layer_types=["linear_attention", "full_attention", "linear_attention"],
            )
        ),
        gains=MAMBA_GAINS,
    ),
    "granitehybrid-dense": Golden(
        "GraniteMoeHybrid",
        granite(
            **mamba(
                num_local_experts=0,
                intermediate_size=48,
                shared_intermediate_size=48,
                position_embedding_type="rope",
                num_hidden_layers=2,
                layer_types=["linear_attention", "full_attention"],
            )
        ),
        gains=MAMBA_GAINS,
    ),
    "bamba": Golden(
        "Bamba",
        mamba(intermediate_size=48, attn_layer_indices=[1]),
        gains={"out_proj": 0.1, "o_proj": 0.1, "down_proj": 0.15},
    ),
    "jamba": Golden(
        "Jamba",
        {
            **mamba(num_experts=6, num_experts_per_tok=2, intermediate_size=32, mamba_dt_rank=8),
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
        },
        gains={"out_proj": 0.1, "o_proj": 0.1, "down_proj": 0.15, "feed_forward.router": 1.5},
    ),
    "nemotron-h": Golden("NemotronH", nemotron("linear_attention", "mlp", "full_attention"), gains=NEMOTRON_GAINS),
    "nemotron-h-moe": Golden(
        "NemotronH",
        nemotron("linear_attention", "full_attention", "moe", n_routed_experts=6, moe_intermediate_size=32),
        gains=NEMOTRON_GAINS,
    ),
    "lfm2moe": Golden(
        "Lfm2Moe",
        lfm2(num_dense_layers=1, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=16, intermediate_size=48),
        gains=LFM2_GAINS,
    ),
    "qwen3-next": Golden("Qwen3Next", delta_net(**DELTA_EXPERTS), zero_centred=True, gains=DELTA_GAINS),
    "lara-mini": Golden("LaraMini", lara_mini(), gains=DELTA_GAINS),
    "qwen3.5": Golden(
        "Qwen3_5",
        delta_net(intermediate_size=96, linear_value_head_dim=8, **MROPE),
        text=True,
        zero_centred=True,
        gains=DELTA_GAINS,
    ),
    "qwen3.5-moe": Golden(
        "Qwen3_5Moe", delta_net(**DELTA_EXPERTS, **MROPE), text=True, zero_centred=True, gains=DELTA_GAINS
    ),
    "qwen3": Golden("Qwen3", {**SMALL, **DENSE, "head_dim": 32}),
    "qwen2": Golden("Qwen2", {**SMALL, **DENSE, "tie_word_embeddings": True}),
    "qwen2moe": Golden("Qwen2Moe", qwen2moe()),
    "qwen2moe-fused": Golden("Qwen2Moe", qwen2moe(norm_topk_prob=True), fused=True),
    "qwen2moe-dense-layers": Golden("Qwen2Moe", qwen2moe(mlp_only_layers=[0], intermediate_size=64)),
    "glm4moe": Golden(
        "Glm4Moe",
        {
            **SMALL,
            **BIASED,
            **GROUPS,
            "intermediate_size": 96,
            "head_dim": 32,
            "attention_bias": True,
            "use_qk_norm": True,
            "routed_scaling_factor": 2.5,
        },
    ),
    "glm4moe-air": Golden(
        "Glm4Moe", {**SMALL, **BIASED, "intermediate_size": 96, "n_shared_experts": 1, "norm_topk_prob": False}
    ),
    "solar-open": Golden(
        "SolarOpen",
        {**SMALL, **BIASED, "head_dim": 32, "n_shared_experts": 1, **rope("default", partial_rotary_factor=1.0)},
    ),
    "dots1": Golden(
        "Dots1",
        {
            **SMALL,
            **BIASED,
            **GROUPS,
            "num_key_value_heads": 4,
            "intermediate_size": 96,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
        },
    ),
    "afmoe": Golden(
        "Afmoe",
        {
            **SMALL,
            "num_hidden_layers": 4,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "intermediate_size": 64,
            "head_dim": 16,
            "sliding_window": 5,
            "mup_enabled": True,
            "route_scale": 2.5,
        },
        gains={**POST_NORM, "post_mlp_layernorm": 0.15, "embed_tokens": 0.125},
    ),
    "hy-v3": Golden(
        "HYV3",
        {
            **SMALL,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "intermediate_size": 64,
            "head_dim": 32,
            "router_scaling_factor": 2.5,
        },
    ),
    "deepseek": Golden("Qwen2Moe", PLAIN_DEEPSEEK, gains=NO_GATES, disguise=disguises.deepseek),
    "bailingmoe": Golden("Qwen2Moe", PLAIN_BAILING, gains=NO_GATES, disguise=disguises.bailing),
    "bailingmoe2": Golden(
        "Glm4Moe",
        {**SMALL, **BIASED, **GROUPS, "intermediate_size": 96, "use_qk_norm": True, "routed_scaling_factor": 2.5},
        disguise=disguises.bailing2,
    ),
    "kolibri": Golden(
        "Kolibri1",
        {
            **SMALL,
            **EXPERTS,
            "num_hidden_layers": 3,
            "head_dim": 16,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 48,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        gains={"post_self_attn_layernorm": 0.15, "post_mlp_layernorm": 0.15},
    ),
    "mimo-v2": Golden(
        "MiMoV2Flash",
        {
            **SMALL,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "head_dim": 48,
            "v_head_dim": 32,
            "sliding_window": 5,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        },
    ),
    "smallthinker": Golden(
        "Mixtral",
        {
            **SMALL,
            "hidden_act": "relu",
            "head_dim": 32,
            "intermediate_size": 32,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "sliding_window": None,
        },
        prepare=disguises.route_before_attention,
        disguise=disguises.smallthinker,
    ),
    "aria": Golden(
        "AriaText",
        {
            **SMALL,
            "intermediate_size": 32,
            "head_dim": 32,
            "moe_num_experts": 6,
            "moe_topk": 2,
            "moe_num_shared_experts": 2,
        },
    ),
    "minimax-m2": Golden(
        "MiniMaxM2",
        {
            **SMALL,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "intermediate_size": 32,
            "head_dim": 32,
            **rope("default", partial_rotary_factor=0.5),
        },
    ),
    "ernie4.5-moe": Golden(
        "Ernie4_5_Moe",
        {
            **SMALL,
            "num_hidden_layers": 3,
            "intermediate_size": 96,
            "moe_intermediate_size": 32,
            "moe_num_experts": 6,
            "moe_k": 2,
            "moe_num_shared_experts": 2,
        },
    ),
    "hunyuan-moe": Golden(
        "HunYuanMoEV1",
        {
            **SMALL,
            "num_experts": 6,
            "moe_topk": 2,
            "intermediate_size": 32,
            "head_dim": 32,
            "tie_word_embeddings": True,
            **rope("dynamic", alpha=50.0, factor=1.0),
        },
    ),
    "exaone-moe": Golden(
        "ExaoneMoe",
        {
            **SMALL,
            "num_hidden_layers": 3,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "num_shared_experts": 2,
            "intermediate_size": 64,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "deepseek-v2": Golden("DeepseekV2", latent(**deepseek_yarn(0.707)), gains=LATENT_GAINS),
    "deepseek-v2-groups": Golden(
        "DeepseekV2",
        latent(
            q_lora_rank=24,
            topk_method="group_limited_greedy",
            n_group=4,
            topk_group=2,
            routed_scaling_factor=2.0,
            **rope("yarn", factor=4.0, original_max_position_embeddings=16),
        ),
        gains=LATENT_GAINS,
    ),
    "deepseek-v3": Golden(
        "DeepseekV3",
        latent(q_lora_rank=32, n_group=4, topk_group=2, qk_rope_head_dim=32, v_head_dim=32, **deepseek_yarn(1.0)),
        gains=LATENT_GAINS,
    ),
    "moonlight": Golden(
        "DeepseekV3",
        latent(n_group=1, topk_group=1, routed_scaling_factor=2.446, first_k_dense_replace=0, n_shared_experts=1),
        gains=LATENT_GAINS,
    ),
    "glm4-moe-lite": Golden(
        "Glm4MoeLite",
        latent(q_lora_rank=24, kv_lora_rank=24, v_head_dim=40, n_shared_experts=1, num_experts_per_tok=2),
        gains=LATENT_GAINS,
    ),
    "mistral4": Golden(
        "Mistral4",
        latent(
            q_lora_rank=24,
            first_k_dense_replace=0,
            n_shared_experts=1,
            **rope(
                "yarn",
                factor=8.0,
                original_max_position_embeddings=5,
                mscale=1.0,
                mscale_all_dim=1.0,
                llama_4_scaling_beta=0.5,
            ),
        ),
        gains=LATENT_GAINS,
    ),
    "axk1": Golden(
        "AXK1",
        latent(q_lora_rank=24, n_group=4, topk_group=2, mlp_layer_types=["dense", "sparse"]),
        gains={**LATENT_GAINS, "post_mlp_layernorm": 0.3},
    ),
    "kimi-linear": Golden("KimiLinear", delta_channels(linear_head_dim=16, linear_num_heads=3), gains=CHANNEL_GAINS),
    "ling-3": Golden(
        "BailingHybrid",
        delta_channels(head_dim=16, **GROUPS, first_k_dense_replace=1),
        gains=CHANNEL_GAINS,
    ),
    "youtu": Golden("Youtu", latent(q_lora_rank=32, tie_word_embeddings=True), gains=LATENT_GAINS),
    "olmoe": Golden(
        "Olmoe",
        {**SMALL, **EXPERTS, "num_key_value_heads": 4, "intermediate_size": 32, "norm_topk_prob": False},
    ),
    "olmoe-fused": Golden(
        "Olmoe",
        {
            **SMALL,
            **EXPERTS,
            "num_key_value_heads": 4,
            "intermediate_size": 16,
            "norm_topk_prob": True,
            "clip_qkv": 1.2,
        },
        fused=True,
    ),
    "mixtral": Golden(
        "Mixtral",
        {**SMALL, "intermediate_size": 32, "num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "mixtral-fused": Golden(
        "Mixtral",
        {**SMALL, "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
        fused=True,
    ),
    "llama4": Golden("Llama4", llama4(num_experts_per_tok=1), text=True, fused=True),
    "llama4-dense-layers": Golden("Llama4", llama4_dense_layers(), text=True, fused=True),
    "dbrx": Golden("Dbrx", dbrx(), gains=DBRX_GAINS),
    "falcon-h1": Golden("FalconH1", falcon_h1(), gains=MAMBA_GAINS),
    "falcon-h1-norm": Golden(
        "FalconH1",
        falcon_h1(
            num_hidden_layers=1,
            tie_word_embeddings=True,
            mamba_rms_norm=True,
            mamba_norm_before_gate=False,
            mamba_n_groups=2,
        ),
        gains=MAMBA_GAINS,
    ),
    "gpt-oss": Golden("GptOss", gpt_oss(**ALL_PAIRS), gains=GPT_OSS_GAINS),
    "gpt-oss-yarn": Golden("GptOss", gpt_oss(**SOME_PAIRS), gains=GPT_OSS_GAINS),
    "gpt-oss-mxfp4": Golden("GptOss", gpt_oss(**ALL_PAIRS), mxfp4=True, gains=GPT_OSS_GAINS),
    "command-r": Golden("Cohere", cohere(rope_theta=100.0)),
    "cohere2": Golden("Cohere2", cohere(sliding_window=5, layer_types=["full_attention", "sliding_attention"])),
    "cohere2moe": Golden("Cohere2Moe", cohere2moe(rms_norm_eps=None, expert_selection_fn="sigmoid")),
    "cohere2moe-shared": Golden(
        "Cohere2Moe",
        cohere2moe(num_shared_experts=2, rms_norm_eps=1e-5, mlp_layer_types=["sparse", "sparse"]),
    ),
    "flint": Golden(
        "Flint",
        {**qwen2moe(norm_topk_prob=True), **FLINT},
    ),
    "laguna": Golden(
        "Laguna",
        {
            **qwen3moe(head_dim=16),
            "num_attention_heads_per_layer": [4, 6],
            "intermediate_size": 48,
            "shared_expert_intermediate_size": 16,
            "moe_routed_scaling_factor": 2.5,
            "sliding_window": 5,
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {**mellum(1.0)["rope_parameters"]["full_attention"], "partial_rotary_factor": 0.5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 1.0},
            },
        },
    ),
    "phimoe": Golden("Phimoe", phimoe()),
    "mellum": Golden("Mellum", mellum(10000.0)),
    "mellum-dense": Golden("Mellum", mellum(100.0, mlp_layer_types=["dense", "sparse"])),
    "phi3": Golden("Phi3", phi3(1024, max_position_embeddings=4096)),
    "phi3-long": Golden("Phi3", phi3(8, tie_word_embeddings=True)),
    "phi3-window": Golden("Phi3", phi3(4096, sliding_window=5, **rope("default"))),
    "glm4": Golden("Glm4", glm4(), gains=GLM4_GAINS),
    "gemma": Golden("Gemma", gemma(), zero_centred=True),
    "gemma2": Golden("Gemma2", gemma(**GEMMA2), zero_centred=True, gains=GEMMA_GAINS),
    "gemma4": Golden("Gemma4", gemma4(num_hidden_layers=3, layer_types=GEMMA4_LAYERS), text=True, gains=GEMMA4_GAINS),
    "gemma4-moe": Golden(
        "Gemma4", gemma4(**GEMMA4_MOE, layer_types=GEMMA4_LAYERS[1:]), text=True, gains=GEMMA4_GAINS, fused=True
    ),
    "gemma4-shared": Golden(
        "Gemma4",
        gemma4(
            num_hidden_layers=4,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=96,
            num_kv_shared_layers=2,
            use_double_wide_mlp=True,
            intermediate_size=48,
            layer_types=[*GEMMA4_LAYERS[1:], *GEMMA4_LAYERS[1:]],
        ),
        text=True,
        gains={"q_norm": 0.3, "k_norm": 0.3, "post_": 0.3},
    ),
    "gemma3": Golden(
        "Gemma3", gemma(**GEMMA3, layer_types=GEMMA3_LAYERS), text=True, zero_centred=True, gains=GEMMA_GAINS
    ),
    "granite": Golden("Granite", granite(tie_word_embeddings=True, intermediate_size=96)),
    "granitemoe": Golden("GraniteMoe", granite(**GRANITE_MOE)),
    "granitemoe-shared": Golden("GraniteMoeShared", granite(**GRANITE_MOE, shared_intermediate_size=48)),
    "granite-swa": Golden("GraniteSWA", granite_swa(layer_rope_theta=[0.0, 100.0], intermediate_size=96)),
    "granitemoe-swa": Golden("GraniteMoeSWA", granite_swa(**GRANITE_MOE, shared_intermediate_size=48)),
    "granitemoe-fused": Golden("GraniteMoe", granite(**GRANITE_MOE, num_key_value_heads=4), fused=True),
    "llama": Golden("Llama", {**SMALL, **DENSE}, dtype=torch.float32),
    "llama-biased": Golden(
        "Llama",
        {
            **SMALL,
            **DENSE,
            "num_key_value_heads": 4,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "llama-linear": Golden(
        "Llama", {**SMALL, **DENSE, "head_dim": 24, **rope("linear", factor=4.0)}, dtype=torch.float16
    ),
    "llama-llama3": Golden("Llama", {**SMALL, **DENSE, "head_dim": 32, **LLAMA3}),
    "llama-yarn": Golden(
        "Llama",
        {**SMALL, **DENSE, "head_dim": 32, **rope("yarn", factor=4.0, original_max_position_embeddings=16)},
    ),
    "llama-wide": Golden(
        "Llama",
        {
            **SMALL,
            **DENSE,
            "vocab_size": 64,
            "hidden_size": 256,
            "intermediate_size": 256,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "tie_word_embeddings": True,
        },
    ),
    "mistral": Golden("Mistral", {**SMALL, **DENSE, "sliding_window": None}),
    "ministral": Golden(
        "Ministral",
        {
            **SMALL,
            **DENSE,
            "head_dim": 32,
            "sliding_window": 5,
            "layer_types": ["full_attention", "sliding_attention"],
            **rope("default"),
        },
    ),
    "mistral-window": Golden("Mistral", {**SMALL, **DENSE, "sliding_window": 8}),
}


GROKS = {"grok": grok.CONFIG, "grok-2": {**grok.CONFIG, **grok.SECOND}}
"""Configs of what `transformers` has not."""

GAINS = {"q_proj": 1.2, "k_proj": 1.2, "o_proj": 0.2, "down_proj": 0.3, "mlp.gate.": 1.5, "router.": 1.5}


def randomize(model: torch.nn.Module, golden: Golden, seed: int) -> None:
    """Weights with which every part matters: norms differ from one, biases from zero, attention and routing are sharp.

    What a layer adds is a fraction of what it gets, so that rounding errors of a layer do not grow in the next.
    """
    generator = torch.Generator().manual_seed(seed)
    biases = [item for item in model.named_buffers() if item[0].endswith(SELECTION_BIASES)]
    for name, parameter in sorted([*model.named_parameters(), *biases]):
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith(SELECTION_BIASES):
            value = 0.2 * noise
        elif parameter.ndim == 1 or name.endswith("_bias"):
            gain = next((gain for part, gain in golden.gains.items() if part in name), 1.0)
            value = gain * (0.3 * noise + (1.0 if "norm" in name or name.endswith("scale") else 0.0))
            value -= float(golden.zero_centred and "linear_attn" not in name)
        elif "embed_tokens" in name:
            value = noise
        else:
            gains = {**GAINS, **golden.gains}
            gain = next((gain for part, gain in gains.items() if part in name), 1.0)
            value = noise * gain / parameter.shape[-1] ** 0.5
        if golden.mxfp4 and name.endswith("_proj"):
            codes, exponents = mxfp4_codes(value.transpose(1, 2))
            value = mxfp4_values(codes, exponents).transpose(1, 2).contiguous()
        parameter.data = value.to(golden.dtype).float()
    for name, buffer in sorted(model.named_buffers()):
        if name.endswith("layer_scalar"):
            buffer.copy_((1 + 0.2 * torch.randn(buffer.shape, generator=generator)).to(golden.dtype))
        if name.endswith("expert_bias"):
            buffer.copy_((0.2 * torch.randn(buffer.shape, generator=generator)).to(golden.dtype))


E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
E2M1 = torch.cat([E2M1, -E2M1])


def mxfp4_codes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest codes [..., blocks, 32] under the exponents [..., blocks] that fit x [..., in]."""
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    exponents = blocks.abs().amax(-1).log2().floor() - 2
    distance = (blocks[..., None] / 2.0 ** exponents[..., None, None] - E2M1).abs()
    return distance.argmin(-1).to(torch.uint8), (exponents + 127).to(torch.uint8)


def mxfp4_values(codes: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """Their values [..., in]."""
    return (E2M1[codes.long()] * 2.0 ** (exponents[..., None].float() - 127)).flatten(-2)


def save_mxfp4(model: torch.nn.Module, folder: Path) -> None:
    """As OpenAI stores gpt-oss: two codes in a byte, the lower half first, exponents in a tensor of their own."""
    kept = {}
    for name, value in model.state_dict().items():
        if name.endswith(("gate_up_proj", "down_proj")):
            codes, kept[f"{name}_scales"] = mxfp4_codes(value.float().transpose(1, 2))
            kept[f"{name}_blocks"] = codes[..., ::2] | codes[..., 1::2] << 4
        else:
            kept[name] = value
    config = model.config
    config.architectures, config.dtype = [type(model).__name__], torch.bfloat16
    config.quantization_config = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    config.save_pretrained(folder)
    save_file({key: value.contiguous() for key, value in kept.items()}, folder / "model.safetensors", {"format": "pt"})


SELECTION_BIASES = ("e_score_correction_bias", "expert_bias")


def selection_bias(module: Any, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
    """What a router adds to scores: its own, or given to it."""
    found = (getattr(part, name, None) for part in (module, *module.children()) for name in SELECTION_BIASES)
    return next((bias for bias in found if bias is not None), inputs[1] if len(inputs) > 1 else None)


def experts_used(config: Any) -> int:
    """Where routers do not know it."""
    return getattr(config, "top_k_experts", None) or config.ffn_config.moe_top_k


def routing_gap(model: Any, tokens: torch.Tensor) -> float:
    """How far from a tie the closest choice of experts is; rounding must not change it."""
    gaps = [float("inf")]

    def note(scores: torch.Tensor, used: int) -> None:
        ranked = scores.sort(descending=True).values
        if used == ranked.shape[1]:
            return
        gaps.append(float((ranked[:, used - 1] - ranked[:, used]).min()))

    def look(module: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        matrix = next(part for part in (module, *module.children()) if hasattr(part, "weight"))
        logits = torch.nn.functional.linear(inputs[0], matrix.weight, getattr(matrix, "bias", None)).flatten(0, -2)
        bias = selection_bias(module, inputs)
        choice, group_best, steepness = logits, 1, 1
        if model.config.model_type == "kolibri1":
            choice = logits + bias
        elif bias is not None:
            scores = logits.softmax(-1) if hasattr(module, "moe_statics") else logits.sigmoid()
            choice, group_best, steepness = scores + bias.flatten(), 2, 3  # scores are closer than logits are
        groups, kept = getattr(module, "num_group", None) or 1, getattr(module, "topk_group", None) or 1
        if kept < groups:
            by_group = choice.unflatten(-1, (groups, -1))
            best = by_group.topk(group_best).values.sum(-1)
            note(best, kept)
            worst = best.topk(kept).values[:, -1:]
            choice = by_group.masked_fill((best < worst)[..., None], -1e9).flatten(-2)
        note(steepness * choice, getattr(module, "top_k", None) or experts_used(model.config))
        for own in logits.topk(2).values.split(1, -1) if hasattr(module, "router_jitter_noise") else ():
            distance = (own - logits) / torch.maximum(logits.abs(), own) - 2 * module.router_jitter_noise
            gaps.append(4 * float(distance.abs().min()))  # from the edge of a sparse mixer's band

    routers = (
        "mlp.gate",
        "mlp.router",
        "block_sparse_moe.router",
        "feed_forward.gate",
        "feed_forward.router",
        "ffn.router",
        "mixer.gate",
        "router.proj",
    )
    hooks = [m.register_forward_hook(look) for name, m in model.named_modules() if name.endswith(routers)]
    model(tokens, use_cache=False)
    for hook in hooks:
        hook.remove()
    return min(gaps)


@torch.no_grad()
def make(
    folder: Path, golden: Golden, *, seeds: range = range(10_000), gap: float = SMALLEST_GAP, length: int = LENGTH
) -> str:
    """Write one folder, with the first of the seeds that keeps all routers that far from a tie; what came of it."""
    kind = "TextConfig" if golden.text else "Config"
    config = getattr(transformers, f"{golden.family}{kind}")(**golden.config)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{golden.family}ForCausalLM")(config).float().eval()
    golden.prepare(model)
    for seed in seeds:
        randomize(model, golden, seed)
        tokens = torch.randint(config.vocab_size, (SEQUENCES, length), generator=torch.Generator().manual_seed(seed))
        if routing_gap(model, tokens) >= gap:
            break
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    logits = model(tokens, use_cache=False).logits
    np.savez_compressed(folder / "logits.npz", tokens=tokens.numpy(), logits=logits.float().numpy())

    model.to(golden.dtype)
    options = {}
    if golden.mxfp4:
        save_mxfp4(model, folder)
        options["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
    elif golden.fused:
        config.architectures = [type(model).__name__]
        config.save_pretrained(folder)
        kept = {key: value.contiguous() for key, value in model.state_dict().items()}
        if config.tie_word_embeddings:
            kept.pop("lm_head.weight")
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        model.save_pretrained(folder, max_shard_size=golden.shard_size or "1GB")
        (folder / "generation_config.json").unlink(missing_ok=True)

    again = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **options).eval()
    golden.prepare(again)
    assert torch.equal(again(tokens, use_cache=False).logits, logits), folder
    if golden.disguise is not None:
        golden.disguise(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"seed {seed}, {size / 1000:.0f} kB, logits of standard deviation {float(logits.std()):.2f}"


if __name__ == "__main__":
    for wanted in sys.argv[1:] or (*GOLDENS, *GROKS):
        own = GROKS.get(wanted)
        made = grok.make(HERE / wanted, own, SEQUENCES, LENGTH) if own else make(HERE / wanted, GOLDENS[wanted])
        print(f"{wanted}: {made}")
