"""HF configs and GGUF metadata both give a ModelSpec, and what is unsupported is refused by name."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Role, Weight
from edgert_models.metadata import metadata_from_spec
from edgert_models.ops import Attend, GatedActivation, LayerNorm, Linear, Moe, RmsNorm, Rope, Scale, Slice, SoftCap
from edgert_models.registry import architecture_of_config, build_plan, spec_from_config, spec_from_gguf
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID, SOFTMAX, Router
from edgert_models.sources import Arranged

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
}
EXPERTS = {"num_experts_per_tok": 2}
NEMOTRON = {"mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 2}
MAMBA = {"mamba_n_heads": 8, "mamba_d_state": 16, "mamba_n_groups": 1}
DELTA = {
    **SIZES,
    "num_hidden_layers": 5,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
}
DELTA_EXPERTS = {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48}
BIASED = {**EXPERTS, "n_routed_experts": 8, "moe_intermediate_size": 32, "n_shared_experts": 1}
BAILING = {**EXPERTS, "num_experts": 8, "moe_intermediate_size": 32, "num_shared_experts": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"], **SIZES, "tie_word_embeddings": True},
    "yi": {"architectures": ["LlamaForCausalLM"], **SIZES, "rope_theta": 5e6, "attention_bias": False},
    "biased": {"architectures": ["LlamaForCausalLM"], **SIZES, "attention_bias": True, "mlp_bias": True},
    "mistral": {"architectures": ["MistralForCausalLM"], **SIZES, "sliding_window": 32, "head_dim": 32},
    "ministral": {
        "architectures": ["MinistralForCausalLM"],
        **SIZES,
        "sliding_window": 32,
        "layer_types": ["full_attention", "sliding_attention"],
    },
    "mixtral": {"architectures": ["MixtralForCausalLM"], **SIZES, **EXPERTS, "num_local_experts": 4},
    "olmoe": {"architectures": ["OlmoeForCausalLM"], **SIZES, **EXPERTS, "num_experts": 4, "clip_qkv": None},
    "lfm2": {
        "architectures": ["Lfm2ForCausalLM"],
        **SIZES,
        "layer_types": ["conv", "full_attention"],
        "norm_eps": 1e-5,
    },
    "lfm2moe": {
        "architectures": ["Lfm2MoeForCausalLM"],
        **SIZES,
        **EXPERTS,
        "layer_types": ["conv", "full_attention"],
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "num_dense_layers": 1,
    },
    "granitehybrid": {
        "architectures": ["GraniteMoeHybridForCausalLM"],
        **SIZES,
        **EXPERTS,
        **MAMBA,
        "num_local_experts": 4,
        "shared_intermediate_size": 192,
        "layer_types": ["mamba", "attention"],
        "time_step_limit": [0.0, {"__float__": "Infinity"}],
    },
    "granite-all-attention": {
        "architectures": ["GraniteMoeHybridForCausalLM"],
        **SIZES,
        "num_local_experts": 0,
        "shared_intermediate_size": 192,
        "layer_types": ["attention", "attention"],
        "position_embedding_type": "rope",
    },
    "bamba": {"architectures": ["BambaForCausalLM"], **SIZES, **MAMBA, "attn_layer_indices": [1]},
    "jamba": {
        "architectures": ["JambaForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_experts": 4,
        "num_hidden_layers": 5,
        "attn_layer_offset": 2,
        "attn_layer_period": 4,
    },
    "nemotron_h": {"architectures": ["NemotronHForCausalLM"], **SIZES, **NEMOTRON, "hybrid_override_pattern": "M-*"},
    "nemotron_h_moe": {
        "architectures": ["NemotronHForCausalLM"],
        **SIZES,
        **NEMOTRON,
        **EXPERTS,
        "n_routed_experts": 4,
        "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 48,
        "layers_block_type": ["mamba", "moe", "attention"],
    },
    "qwen3next": {"architectures": ["Qwen3NextForCausalLM"], **DELTA, **DELTA_EXPERTS},
    "qwen3.5": {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "tie_word_embeddings": True,
        "text_config": {**DELTA, "rope_parameters": {"rope_theta": 1e6, "mrope_section": [11, 11, 10]}},
        "vision_config": {},
    },
    "qwen3.5-moe": {
        "architectures": ["Qwen3_5MoeForCausalLM"],
        **DELTA,
        "layer_types": ["linear_attention"] * 2 + ["full_attention"] * 3,
        **DELTA_EXPERTS,
    },
    "qwen3moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "head_dim": 32,
        "norm_topk_prob": True,
    },
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], **SIZES, "tie_word_embeddings": True},
    "olmo2": {"architectures": ["Olmo2ForCausalLM"], **SIZES},
    "olmo3": {"architectures": ["Olmo3ForCausalLM"], **SIZES, "num_hidden_layers": 5, "sliding_window": 16},
    "olmo3-yarn": {
        "architectures": ["Olmo3ForCausalLM"],
        **SIZES,
        "sliding_window": 16,
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 5e5},
            "full_attention": {
                "rope_type": "yarn",
                "rope_theta": 5e5,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    },
    "flex-olmo": {"architectures": ["FlexOlmoForCausalLM"], **SIZES, **EXPERTS, "num_experts": 4},
    "exaone4": {"architectures": ["Exaone4ForCausalLM"], **SIZES, "sliding_window": None},
    "exaone4-windows": {
        "architectures": ["Exaone4ForCausalLM"],
        **SIZES,
        "num_hidden_layers": 4,
        "sliding_window": 16,
        "sliding_window_pattern": "LLLG",
    },
    "smollm3": {"architectures": ["SmolLM3ForCausalLM"], **SIZES, "num_hidden_layers": 4, "mlp_bias": True},
    "seed-oss": {"architectures": ["SeedOssForCausalLM"], **SIZES, "head_dim": 32, "attention_out_bias": True},
    "ernie4.5": {"architectures": ["Ernie4_5ForCausalLM"], **SIZES, "use_bias": True},
    "hunyuan-dense": {
        "architectures": ["HunYuanDenseV1ForCausalLM"],
        **SIZES,
        "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0},
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], **SIZES, "head_dim": 32},
    "qwen2moe": {
        "architectures": ["Qwen2MoeForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
    },
    "gpt-oss": {
        "architectures": ["GptOssForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_local_experts": 4,
        "head_dim": 32,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 16,
        "quantization_config": {"quant_method": "mxfp4"},
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 16,
            "truncate": False,
        },
    },
    "command-r": {"architectures": ["CohereForCausalLM"], **SIZES, "layer_norm_eps": 1e-4, "logit_scale": 0.8},
    "cohere2": {"architectures": ["Cohere2ForCausalLM"], **SIZES, "num_hidden_layers": 4, "sliding_window": 16},
    "phi3": {
        "architectures": ["Phi3ForCausalLM"],
        **SIZES,
        "head_dim": 16,
        "original_max_position_embeddings": 32,
        "sliding_window": None,
        "rope_scaling": {"type": "su", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8},
    },
    "phi3-partial": {
        "architectures": ["Phi3ForCausalLM"],
        **SIZES,
        "partial_rotary_factor": 0.75,
        "sliding_window": 16,
    },
    "glm4": {"architectures": ["Glm4ForCausalLM"], **SIZES, "attention_bias": True},
    "mellum": {
        "architectures": ["MellumForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_local_experts": 4,
        "moe_intermediate_size": 32,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "mlp_layer_types": ["dense", "sparse"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
        },
    },
    "cohere2moe": {
        "architectures": ["Cohere2MoeForCausalLM"],
        **SIZES,
        **EXPERTS,
        "rms_norm_eps": None,
        "num_hidden_layers": 6,
        "num_experts": 4,
        "num_shared_experts": 2,
        "first_k_dense_replace": 1,
        "prefix_dense_intermediate_size": 80,
        "expert_selection_fn": "sigmoid",
        "sliding_window": 16,
    },
    "flint": {
        "architectures": ["FlintForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_hidden_layers": 5,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
        "norm_topk_prob": True,
        "sliding_window": 16,
    },
    "phimoe": {
        "architectures": ["PhimoeForCausalLM"],
        **SIZES,
        "num_local_experts": 4,
        "attention_bias": True,
        "lm_head_bias": True,
        "original_max_position_embeddings": 32,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8,
            "short_mscale": 1.24,
            "long_mscale": 1.24,
        },
    },
    "gemma": {"architectures": ["GemmaForCausalLM"], **SIZES, "head_dim": 32, "hidden_act": "gelu_pytorch_tanh"},
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"],
        **SIZES,
        "num_hidden_layers": 3,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 144,
        "sliding_window": 16,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3-vision": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "sliding_window": 16},
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"],
        **SIZES,
        "num_hidden_layers": 7,
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 16,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "gemma4": {
        "architectures": ["Gemma4ForCausalLM"],
        **SIZES,
        "num_hidden_layers": 7,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 16,
        "final_logit_softcapping": 30.0,
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
        },
    },
    "granite": {
        "architectures": ["GraniteForCausalLM"],
        **SIZES,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.015625,
        "logits_scaling": 8.0,
    },
    "granitemoe": {"architectures": ["GraniteMoeForCausalLM"], **SIZES, **EXPERTS, "num_local_experts": 4},
    "granitemoe-shared": {
        "architectures": ["GraniteMoeSharedForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_local_experts": 4,
        "shared_intermediate_size": 48,
    },
    "glm4moe": {
        "architectures": ["Glm4MoeForCausalLM"],
        **SIZES,
        **BIASED,
        "n_group": 4,
        "topk_group": 2,
        "use_qk_norm": True,
        "attention_bias": True,
    },
    "glm4moe-air": {"architectures": ["Glm4MoeForCausalLM"], **SIZES, **BIASED, "first_k_dense_replace": 0},
    "solar-open": {"architectures": ["SolarOpenForCausalLM"], **SIZES, **BIASED, "head_dim": 32},
    "dots1": {"architectures": ["Dots1ForCausalLM"], **SIZES, **BIASED, "first_k_dense_replace": 1},
    "minimax-m2": {
        "architectures": ["MiniMaxM2ForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_local_experts": 4,
        "head_dim": 32,
        "rotary_dim": 16,
        "use_mtp": True,
    },
    "ernie4.5-moe": {
        "architectures": ["Ernie4_5_MoeForCausalLM"],
        **SIZES,
        "num_hidden_layers": 5,
        "moe_intermediate_size": 32,
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_layer_interval": 2,
        "moe_layer_end_index": 3,
    },
    "hunyuan-moe": {
        "architectures": ["HunYuanMoEV1ForCausalLM"],
        **SIZES,
        "num_experts": 4,
        "moe_topk": [2, 2],
        "moe_intermediate_size": [96, 96],
        "num_shared_expert": [1, 1],
        "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0},
    },
    "exaone-moe": {
        "architectures": ["ExaoneMoeForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_hidden_layers": 4,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "sliding_window": 16,
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    },
    "afmoe": {
        "architectures": ["AfmoeForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_hidden_layers": 4,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "head_dim": 16,
        "num_dense_layers": 2,
        "sliding_window": 16,
        "mup_enabled": True,
    },
    "hy-v3": {
        "architectures": ["HYV3ForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "router_scaling_factor": 2.5,
    },
    "kolibri": {
        "architectures": ["Kolibri1ForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "mimo-v2": {
        "architectures": ["MiMoV2FlashForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "swa_num_key_value_heads": 2,
        "head_dim": 24,
        "v_head_dim": 16,
        "n_routed_experts": 4,
        "moe_intermediate_size": 32,
        "hybrid_layer_pattern": [0, 1, 1],
        "moe_layer_freq": [0, 1, 1],
        "sliding_window": 16,
        "sliding_window_size": 16,
        "attention_value_scale": 0.707,
        "routed_scaling_factor": None,
    },
    "smallthinker": {
        "architectures": ["SmallThinkerForCausalLM"],
        **SIZES,
        "num_hidden_layers": 5,
        "moe_num_primary_experts": 4,
        "moe_num_active_primary_experts": 2,
        "moe_ffn_hidden_size": 32,
        "sliding_window_size": 16,
        "sliding_window_layout": [0, 1, 1, 1, 0],
        "rope_layout": [0, 1, 1, 1, 0],
    },
    "aria": {
        "architectures": ["AriaTextForCausalLM"],
        **SIZES,
        "moe_num_experts": 4,
        "moe_topk": 2,
    },
    "deepseek": {"architectures": ["DeepseekForCausalLM"], **SIZES, **BIASED, "first_k_dense_replace": 1},
    "bailingmoe": {"architectures": ["BailingMoeForCausalLM"], **SIZES, **BAILING, "norm_topk_prob": True},
    "bailingmoe2": {
        "architectures": ["BailingMoeV2ForCausalLM"],
        **SIZES,
        **BAILING,
        "first_k_dense_replace": 1,
        "n_group": 4,
        "topk_group": 2,
    },
    "sarvam": {"architectures": ["SarvamMoEForCausalLM"], **SIZES, **BAILING, "first_k_dense_replace": 1},
    "linear": {
        "architectures": ["LlamaForCausalLM"],
        **SIZES,
        "rope_scaling": {"type": "linear", "factor": 2.0},
    },
    "yarn": {
        "architectures": ["Qwen3MoeForCausalLM"],
        **SIZES,
        **EXPERTS,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "attention_factor": 1.5,
        },
    },
    "llama3": {
        "architectures": ["LlamaForCausalLM"],
        **SIZES,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
}


class Entries(dict[str, Any]):
    """Metadata as a reader gives it."""

    def _get(self, key: str, *default: Any) -> Any:
        return self.get(key, *default) if default else self[key]

    string = integer = number = boolean = _get

    def integers(self, key: str, default: list[int], *, count: int) -> list[int]:
        found = self.get(key, default)
        assert isinstance(found, int) or len(found) == count
        return [found] * count if isinstance(found, int) else found

    def booleans(self, key: str, default: list[bool], *, count: int | None) -> list[bool]:
        found: list[bool] = self.get(key, default)
        assert key not in self or count is None or len(found) == count
        return found


@pytest.mark.parametrize("name", CONFIGS)
def test_spec_survives_gguf(name: str) -> None:
    spec = spec_from_config(CONFIGS[name])
    shapes = {weight.name: weight.shape for weight in build_plan(spec).weights.values()}
    entries = Entries({"general.architecture": spec.architecture, **metadata_from_spec(spec)})
    again = spec_from_gguf(entries, shapes)
    if spec.rope.scaling == "none":  # a file keeps the original context only where a scaling needs it
        assert again.rope.frequencies() == spec.rope.frequencies()
    else:
        assert again.rope.frequencies() == pytest.approx(spec.rope.frequencies())
    assert (again.window_rope is None) == (spec.window_rope is None)
    if spec.window_rope and again.window_rope:
        assert again.window_rope.frequencies() == pytest.approx(spec.window_rope.frequencies())
    assert again.rope.magnitude() == pytest.approx(spec.rope.magnitude())
    assert build_plan(again).weights == build_plan(spec).weights
    for field in (
        "heads",
        "kv_heads",
        "head_size",
        "experts",
        "experts_used",
        "router",
        "sparse",
        "shared_gate",
        "shared_feed_forward",
        "window",
        "windowed",
        "window_kv_heads",
        "window_head_size",
        "keys_as_values",
        "tied",
        "scales",
        "layer_norm",
        "norm_bias",
        "logits_bias",
        "activation",
        "recurrence",
        "positions",
    ):
        assert getattr(again, field) == getattr(spec, field), field


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_has_a_source(name: str) -> None:
    architecture = architecture_of_config(CONFIGS[name])
    spec = spec_from_config(CONFIGS[name])
    for weight in build_plan(spec).weights.values():
        architecture.source(spec, weight.name)


def test_plan_of_a_dense_model() -> None:
    plan = build_plan(spec_from_config(CONFIGS["llama"]))
    assert plan.weights["blk.1.attn_k.weight"].shape == (32, 64)
    assert "output.weight" not in plan.weights
    assert plan.logits.width == 96
    assert plan.hidden.picked
    assert plan.logits.picked
    assert [(cache.key_width, cache.value_width) for cache in plan.caches] == [(32, 32)] * 2
    assert all(op.out.id == i for i, op in enumerate(plan.ops))


def test_windows_and_sinks_of_gpt_oss() -> None:
    plan = build_plan(spec_from_config({**CONFIGS["gpt-oss"], "num_hidden_layers": 3, "layer_types": None}))
    assert [op.window for op in plan.ops if isinstance(op, Attend)] == [16, None, 16]
    assert [cache.window for cache in plan.caches] == [16, None, 16]
    assert plan.weights["blk.2.attn_sinks.weight"].shape == (4,)
    assert plan.weights["blk.1.ffn_up_exps.bias"].shape == (4, 96)
    assert plan.weights["blk.1.ffn_down_exps.bias"].shape == (4, 64)
    assert {plan.weights[f"blk.0.{name}.bias"].role for name in ("attn_k", "ffn_gate_inp", "ffn_gate_exps")} == {
        Role.VECTOR
    }


def test_windows_and_ropes_of_olmo3() -> None:
    plan = build_plan(spec_from_config(CONFIGS["olmo3"]))
    assert [op.window for op in plan.ops if isinstance(op, Attend)] == [16, 16, 16, None, 16]
    assert "blk.0.attn_norm.weight" not in plan.weights
    assert plan.weights["blk.4.post_ffw_norm.weight"].shape == (64,)
    spec = spec_from_config(CONFIGS["olmo3-yarn"])
    scaled, _, plain, _ = (op for op in build_plan(spec).ops if isinstance(op, Rope))
    assert (scaled.frequencies, scaled.magnitude) == (spec.rope.frequencies(), spec.rope.magnitude())
    assert (plain.frequencies[1], plain.magnitude) == (pytest.approx(5e5 ** (-2 / 16)), 1.0)
    assert scaled.magnitude == pytest.approx(1 + 0.1 * math.log(4))


def test_layers_with_windows_in_a_file_that_does_not_say() -> None:
    spec = spec_from_config(CONFIGS["olmo3"])
    shapes = {weight.name: weight.shape for weight in build_plan(spec).weights.values()}
    entries = Entries({"general.architecture": "olmo2", **metadata_from_spec(spec)})
    assert entries.pop("olmo2.attention.sliding_window_pattern") == [True, True, True, False, True]
    assert spec_from_gguf(entries, shapes).windowed == spec.windowed


def test_windows_of_ministral() -> None:
    plan = build_plan(spec_from_config(CONFIGS["ministral"]))
    assert [cache.window for cache in plan.caches] == [None, 32]


@pytest.mark.parametrize(
    ("name", "rotated"),
    [
        ("smollm3", [True, True, True, False]),
        ("exaone4", [True, True]),
        ("exaone4-windows", [True, True, True, False]),
        ("flint", [False, False, True, True, False]),
        ("afmoe", [True, True, True, False]),
        ("smallthinker", [False, True, True, True, False]),
        ("kolibri", [True, False]),
        ("cohere2moe", [True, True, True, True, False, True]),
        ("cohere2", [True, True, True, False]),
        ("olmo3-yarn", [True, True]),
    ],
)
def test_layers_without_positions(name: str, rotated: list[bool]) -> None:
    plan = build_plan(spec_from_config(CONFIGS[name]))
    assert [isinstance(plan.ops[op.q.id], Rope) for op in plan.ops if isinstance(op, Attend)] == rotated


def test_hunyuan_rotates_before_it_normalises() -> None:
    plan = build_plan(spec_from_config(CONFIGS["hunyuan-dense"]))
    ropes = [op for op in plan.ops if isinstance(op, Rope)]
    normalised = [op.x for op in plan.ops if isinstance(op, RmsNorm) and op.groups > 1]
    assert normalised == [op.out for op in ropes]
    assert ropes[0].frequencies[1] == pytest.approx((10000 * 1000 ** (16 / 14)) ** (-2 / 16))


def test_biases_by_the_names_of_each_config() -> None:
    def biases(name: str) -> set[str]:
        weights = build_plan(spec_from_config(CONFIGS[name])).weights
        return {key.removeprefix("blk.0.").removesuffix(".bias") for key in weights if re.match(r"blk\.0\..*bias", key)}

    attention = {"attn_q", "attn_k", "attn_v"}
    feed_forward = {"ffn_gate", "ffn_up", "ffn_down"}
    assert biases("seed-oss") == {*attention, "attn_output"}
    assert biases("ernie4.5") == {*attention, "attn_output", *feed_forward}
    assert biases("smollm3") == feed_forward


def test_yarn_between_pairs_that_are_no_whole_numbers() -> None:
    """The formula of the paper, without rounding: pair i turns by f/s (i - low)/(high - low) + f (high - i)/(...)."""
    spec = spec_from_config(CONFIGS["gpt-oss"])
    high = 32 * math.log(16 / (2 * math.pi)) / (2 * math.log(10000))
    ramps = [min(i / high, 1) for i in range(16)]
    assert 1 < high < 2
    plain = [10000 ** (-2 * i / 32) for i in range(16)]
    assert spec.rope.frequencies() == pytest.approx(
        [f * (1 - r) + f / 8 * r for f, r in zip(plain, ramps, strict=True)]
    )


def test_shared_expert_of_qwen2moe() -> None:
    spec = spec_from_config(CONFIGS["qwen2moe"])
    plan = build_plan(spec)
    shapes = {name: weight.shape for name, weight in plan.weights.items()}
    assert shapes["blk.1.ffn_up_shexp.weight"] == (48, 64)
    assert shapes["blk.1.ffn_down_shexp.weight"] == (64, 48)
    assert shapes["blk.1.ffn_gate_inp_shexp.weight"] == (64,)
    assert plan.weights["blk.1.ffn_gate_inp_shexp.weight"].role is Role.VECTOR
    gates = [op for op in plan.ops if isinstance(op, GatedActivation) and op.kind == "sigmoid"]
    assert [(op.gate.width, op.up.width, op.out.width) for op in gates] == [(1, 64, 64)] * 2
    assert shapes["blk.0.attn_k.bias"] == (32,)
    assert "blk.0.attn_output.bias" not in shapes
    assert not spec.router.normalize
    entries = metadata_from_spec(spec)
    assert entries["qwen2moe.expert_shared_feed_forward_length"] == 48
    assert entries["qwen2moe.feed_forward_length"] == 96
    del entries["qwen2moe.expert_shared_feed_forward_length"]  # what early files lack
    again = spec_from_gguf(Entries({"general.architecture": "qwen2moe", **entries}), shapes)
    assert again.shared_feed_forward == 48


def test_gemma_2_has_caps_and_windows_in_turns() -> None:
    spec = spec_from_config(CONFIGS["gemma2"])
    plan = build_plan(spec)
    attends = [op for op in plan.ops if isinstance(op, Attend)]
    assert [(op.window, op.scale, op.softcap) for op in attends] == [(w, 1 / 12, 50.0) for w in (16, None, 16)]
    assert [op.factor for op in plan.ops if isinstance(op, Scale)] == [8.0]
    assert {op.kind for op in plan.ops if isinstance(op, GatedActivation)} == {"gelu"}
    assert plan.ops[-1] == SoftCap(out=plan.logits, x=plan.values[-2], cap=30.0)
    assert spec.tied


@pytest.mark.parametrize(("name", "layers"), [("gemma2", 46), ("gemma3", 62)])
def test_scores_of_the_largest_gemmas_in_a_file_that_does_not_say(name: str, layers: int) -> None:
    spec = replace(spec_from_config(CONFIGS[name]), layers=layers, heads=8, windowed=())
    entries = Entries({"general.architecture": name, **metadata_from_spec(spec)})
    del entries[f"{name}.attention.scale"]
    shapes = {"token_embd.weight": (96, 64)}
    assert spec_from_gguf(entries, shapes).scales.attention == 8**-0.5
    assert spec_from_gguf(Entries({**entries, f"{name}.block_count": 26}), shapes).scales.attention is None


def test_gemma_3_has_another_rope_within_windows() -> None:
    ropes = [op for op in build_plan(spec_from_config(CONFIGS["gemma3"])).ops if isinstance(op, Rope)][::2]
    within, full = 1e4 ** (-2 / 16), 1e6 ** (-2 / 16) / 8
    assert [op.frequencies[1] for op in ropes] == pytest.approx([*[within] * 5, full, within])


def test_gemma_4_has_other_heads_within_windows() -> None:
    plan = build_plan(spec_from_config(CONFIGS["gemma4"]))
    heads = [(op.kv_heads, op.head_size, op.window) for op in plan.ops if isinstance(op, Attend)]
    assert heads == [*[(2, 16, 16)] * 5, (1, 32, None), (2, 16, 16)]
    assert [(cache.key_width, cache.value_width) for cache in plan.caches[4:6]] == [(32, 32), (32, 32)]
    assert {name for name in plan.weights if "attn_v" in name} == {f"blk.{i}.attn_v.weight" for i in (0, 1, 2, 3, 4, 6)}
    assert plan.weights["blk.5.attn_k.weight"].shape == (32, 64)
    ropes = [op for op in plan.ops if isinstance(op, Rope)]
    assert [op.factors for op in ropes[8:12]] == [None, None, "rope_freqs.weight", "rope_freqs.weight"]
    assert [op.expert_scale for op in plan.ops if isinstance(op, Moe)][6] == "blk.6.ffn_down_exps.scale"


@pytest.mark.parametrize("key", ["embedding_length_per_layer_input", "attention.shared_kv_layers"])
def test_files_of_the_smallest_gemmas_4_are_refused(key: str) -> None:
    spec = spec_from_config(CONFIGS["gemma4"])
    shapes = {weight.name: weight.shape for weight in build_plan(spec).weights.values()}
    entries = Entries({"general.architecture": "gemma4", **metadata_from_spec(spec), f"gemma4.{key}": 18})
    with pytest.raises(UnsupportedError, match=f"gemma4.{key}=18 is not supported; supported: 0"):
        spec_from_gguf(entries, shapes)


def test_norms_and_biases_of_phimoe() -> None:
    spec = spec_from_config(CONFIGS["phimoe"])
    plan = build_plan(spec)
    assert {op.bias for op in plan.ops if isinstance(op, LayerNorm)} >= {"blk.0.ffn_norm.bias", "output_norm.bias"}
    assert {"output.bias", "blk.1.attn_output.bias"} <= set(plan.weights)
    assert (spec.router.scoring, spec.router.band, spec.rope.magnitude()) == ("sparsemixer", 0.02, 1.24)
    entries = metadata_from_spec(spec)
    assert entries["phimoe.attention.layer_norm_rms_epsilon"] == 1e-6  # under which name llama.cpp wants it
    assert "phimoe.expert_gating_func" not in entries


def test_products_of_phi3_are_fused() -> None:
    spec = spec_from_config(CONFIGS["phi3"])
    plan = build_plan(spec)
    shapes = {name: weight.shape for name, weight in plan.weights.items()}
    assert shapes["blk.1.attn_qkv.weight"] == (64 + 32 + 32, 64)
    assert shapes["blk.1.ffn_up.weight"] == (2 * 96, 64)
    assert "blk.1.ffn_gate.weight" not in shapes
    slices = [(op.start, op.out.width) for op in plan.ops if isinstance(op, Slice)]
    assert slices[:5] == [(0, 64), (64, 32), (96, 32), (0, 96), (96, 96)]


def test_longrope_goes_by_the_context() -> None:
    spec = spec_from_config(CONFIGS["phi3"])
    assert (spec.context, spec.usual_context) == (128, 32)
    for context, kind in ((0, "short"), (32, "short"), (33, "long")):
        plan = build_plan(spec, context)
        assert {op.factors for op in plan.ops if isinstance(op, Rope)} == {f"rope_factors_{kind}.weight"}
        assert {"rope_factors_short.weight", "rope_factors_long.weight"} <= set(plan.weights)
    assert spec.rope.magnitude() == pytest.approx(math.sqrt(1 + math.log(4) / math.log(32)))
    entries = metadata_from_spec(spec)
    del entries["phi3.rope.scaling.type"]  # as llama.cpp's converter has it
    shapes = {name: weight.shape for name, weight in build_plan(spec).weights.items()}
    again = spec_from_gguf(Entries({"general.architecture": "phi3", **entries}), shapes)
    assert again.rope == spec.rope
    early = {**CONFIGS["phi3"], "rope_scaling": {**CONFIGS["phi3"]["rope_scaling"], "type": "yarn"}}
    assert spec_from_config(early).rope == spec.rope


def test_glm4_rotates_half_of_each_head() -> None:
    ropes = [op for op in build_plan(spec_from_config(CONFIGS["glm4"])).ops if isinstance(op, Rope)]
    assert {(len(op.frequencies), op.layout) for op in ropes} == {(4, RopeLayout.INTERLEAVED)}


def test_command_r_reads_one_norm_twice() -> None:
    spec = spec_from_config(CONFIGS["command-r"])
    plan = build_plan(spec)
    first = next(op for op in plan.ops if isinstance(op, LayerNorm))
    assert (first.eps, first.bias) == (1e-4, None)
    readers = [op.weight for op in plan.ops if isinstance(op, Linear) and op.x == first.out]
    assert readers == [f"blk.0.{part}.weight" for part in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")]
    assert [op.factor for op in plan.ops if isinstance(op, Scale)] == [0.8]
    assert metadata_from_spec(spec)["command-r.attention.layer_norm_epsilon"] == 1e-4


def test_scales_of_granite() -> None:
    spec = spec_from_config(CONFIGS["granite"])
    plan = build_plan(spec)
    assert [op.factor for op in plan.ops if isinstance(op, Scale)] == [12.0, *[0.22] * 4, 1 / 8]
    assert {op.scale for op in plan.ops if isinstance(op, Attend)} == {0.015625}
    entries = metadata_from_spec(spec)
    assert {key: entries[f"granite.{key}"] for key in ("embedding_scale", "residual_scale", "logit_scale")} == {
        "embedding_scale": 12.0,
        "residual_scale": 0.22,
        "logit_scale": 8.0,
    }
    assert entries["granite.attention.scale"] == 0.015625


def test_dense_layers_among_sparse_ones() -> None:
    config = {**CONFIGS["qwen2moe"], "num_hidden_layers": 6, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    spec = spec_from_config(config)
    assert spec.sparse == (False, True, False, False, False, True)
    plan = build_plan(spec)
    assert plan.weights["blk.3.ffn_up.weight"].shape == (96, 64)
    assert "blk.3.ffn_up_shexp.weight" not in plan.weights
    shapes = {name: weight.shape for name, weight in plan.weights.items()}
    entries = metadata_from_spec(spec)
    assert entries["qwen2moe.leading_dense_block_count"] == 1
    again = spec_from_gguf(Entries({"general.architecture": "qwen2moe", **entries}), shapes)
    assert replace(again, rope=spec.rope) == spec
    assert spec_from_config({**config, "decoder_sparse_step": 1, "mlp_only_layers": []}).sparse == ()


def test_families_with_biased_sigmoids() -> None:
    glm = spec_from_config(CONFIGS["glm4moe"])
    assert glm.router == replace(BIASED_SIGMOID, groups=4, groups_used=2)
    assert (glm.rope.dims, glm.sparse, glm.qk_norm, glm.output_bias) == (8, (False, True), "head", False)
    air = spec_from_config(CONFIGS["glm4moe-air"])
    assert (air.sparse, air.qk_norm, air.shared_feed_forward) == ((), None, 32)
    solar = spec_from_config(CONFIGS["solar-open"])
    assert (solar.architecture, solar.rope.dims, solar.sparse) == ("glm4moe", 32, ())
    minimax = spec_from_config(CONFIGS["minimax-m2"])
    assert (minimax.rope.dims, minimax.router.epsilon, minimax.qk_norm) == (16, 0.0, "all")
    exaone = spec_from_config(CONFIGS["exaone-moe"])
    assert (exaone.windowed, exaone.router.scale) == ((True, True, True, False), 2.5)
    ernie = spec_from_config(CONFIGS["ernie4.5-moe"])
    assert (ernie.sparse, ernie.router.scoring) == ((False, True, False, True, False), "softmax")
    assert metadata_from_spec(ernie)["ernie4_5-moe.interleave_moe_layer_step"] == 2


def test_ling() -> None:
    spec = spec_from_config(CONFIGS["bailingmoe"])
    source = architecture_of_config(CONFIGS["bailingmoe"]).source(spec, "blk.1.attn_k.weight")
    assert isinstance(source, Arranged)
    assert source.names == ("model.layers.1.attention.query_key_value.weight",)
    assert source.arrangement is not None
    assert source.arrangement.order()[:4] == [64, 72, 65, 73]
    assert sorted(source.arrangement.order()) == list(range(64, 96))
    second, sarvam = (spec_from_config(CONFIGS[name]) for name in ("bailingmoe2", "sarvam"))
    assert (second.rope.dims, sarvam.rope.dims) == (8, 16)
    assert build_plan(second).weights["blk.0.attn_qkv.weight"].shape == (128, 64)
    assert metadata_from_spec(second)["bailingmoe2.expert_shared_feed_forward_length"] == 32
    assert metadata_from_spec(second)["bailingmoe2.expert_shared_count"] == 2


def test_layers_of_mimo() -> None:
    spec = spec_from_config(CONFIGS["mimo-v2"])
    plan = build_plan(spec)
    attentions = [op for op in plan.ops if isinstance(op, Attend)]
    assert [(op.window, op.kv_heads, op.sinks is None) for op in attentions] == [(None, 1, True), *[(17, 2, False)] * 2]
    assert [(cache.kv_heads, cache.head_size, cache.value_size) for cache in plan.caches[:2]] == [
        (1, 24, 16),
        (2, 24, 16),
    ]
    assert (spec.rope.dims, spec.rope.base, spec.window_rope and spec.window_rope.base) == (8, 5e6, 1e4)
    assert [op.factor for op in plan.ops if isinstance(op, Scale)] == [0.707] * 3
    entries = Entries({"general.architecture": "mimo2", **metadata_from_spec(spec)})
    assert entries["mimo2.attention.head_count_kv"] == [1, 2, 2]
    shapes = {name: weight.shape for name, weight in plan.weights.items()}
    entries |= {"mimo2.nextn_predict_layers": 2, "mimo2.block_count": 5}  # as llama.cpp's converter writes it
    entries |= {f"mimo2.attention.{key}": entries[f"mimo2.attention.{key}"] + [1, 1] for key in ("head_count_kv",)}
    again = spec_from_gguf(Entries(entries), shapes)
    assert (again.kv_heads, again.window_kv_heads, again.windowed, again.nextn) == (1, 2, (False, True, True), 2)


def test_smallthinker_routes_before_it_attends() -> None:
    plan = build_plan(spec_from_config(CONFIGS["smallthinker"]))
    mixtures = [op for op in plan.ops if isinstance(op, Moe)]
    assert [(op.kind, op.router.scoring) for op in mixtures] == [("relu", "sigmoid")] * 5
    entered = [plan.ops[op.logits.id].inputs[0] for op in mixtures]
    assert entered == [plan.ops[0].out, *(plan.ops[op.out.id + 1].out for op in mixtures[:-1])]


def test_layers_of_afmoe() -> None:
    afmoe = spec_from_config(CONFIGS["afmoe"])
    assert afmoe.windowed == (True, True, True, False)
    assert afmoe.scales.embedding == 8.0
    assert afmoe.sparse == (False, False, True, True)


def test_the_bias_of_hy3_has_a_name_of_its_own() -> None:
    assert build_plan(spec_from_config(CONFIGS["hy-v3"])).weights["blk.1.exp_probs_b"].shape == (4,)


def test_routers_in_gguf() -> None:
    """What llama.cpp's converters write of a router; a count of one group, or none, leaves out none."""
    spec = replace(spec_from_config(CONFIGS["qwen3moe"]), experts=16)
    router = Router(scoring="sigmoid", normalize=False, scale=2.5, bias=True, groups=4, groups_used=2)
    ours = replace(spec, router=router, shared_feed_forward=64)
    shapes = {name: weight.shape for name, weight in build_plan(ours).weights.items()}
    assert shapes["blk.1.exp_probs_b.bias"] == (16,)
    entries = Entries({"general.architecture": "qwen3moe", **metadata_from_spec(ours)})
    written = {
        "expert_gating_func": 2,
        "expert_weights_scale": 2.5,
        "expert_weights_norm": False,
        "expert_group_count": 4,
        "expert_group_used_count": 2,
        "expert_shared_count": 2,
    }
    assert {key: entries[f"qwen3moe.{key}"] for key in written} == written
    assert replace(spec_from_gguf(entries, shapes), rope=spec.rope) == ours
    plain = Entries({"general.architecture": "qwen3moe", **metadata_from_spec(spec)})
    assert not set(written) & {key.removeprefix("qwen3moe.") for key in plain} - {"expert_weights_norm"}
    shapes = {name: weight.shape for name, weight in build_plan(spec).weights.items()}
    of_chosen = Entries({**plain, "qwen3moe.expert_gating_func": 3, "qwen3moe.expert_weights_norm": False})
    of_chosen |= {"qwen3moe.expert_group_count": 0, "qwen3moe.expert_weights_scale": 0.0}
    assert spec_from_gguf(Entries(of_chosen), shapes).router == SOFTMAX
    with pytest.raises(UnsupportedError, match=r"expert_gating_func is 4; supported: 1 \(softmax\), 2 \(sigmoid\), 3"):
        spec_from_gguf(Entries({**plain, "qwen3moe.expert_gating_func": 4}), shapes)


@pytest.mark.parametrize(
    ("router", "message"),
    [
        (Router(scoring="tanh"), "the router's scoring is 'tanh'; supported: softmax, sigmoid"),
        (Router(scale=0.0), "the router's scale is 0.0 and its epsilon 0.0"),
        (Router(scale=math.nan), "the router's scale is nan"),
        (Router(epsilon=-1.0), "its epsilon -1.0"),
        (Router(groups=3), "1 groups used of 3 with 16 experts"),
        (Router(groups=4, groups_used=5), "5 groups used of 4 with 16 experts"),
        (Router(groups=0, groups_used=0), "0 groups used of 0"),
        (Router(groups=16, groups_used=2), "2 experts used of 2 groups of 1, ranked by their best 2"),
        (Router(groups=16, groups_used=1, group_best=1), "2 experts used of 1 groups of 1, ranked by their best 1"),
    ],
)
def test_routers_that_cannot_be(router: Router, message: str) -> None:
    spec = replace(spec_from_config(CONFIGS["qwen3moe"]), experts=16)
    with pytest.raises(UnsupportedError, match=f"model of architecture 'qwen3moe' is out of range: .*{message}"):
        replace(spec, router=router)


def test_a_vector_may_be_stored_as_one_row() -> None:
    vector, matrix = Weight("v", (8,), Role.VECTOR), Weight("m", (2, 8), Role.MATRIX)
    taps = Weight("t", (8, 3), Role.VECTOR)
    assert [vector.stored_as(shape) for shape in ((8,), (1, 8), (8, 1), (1, 1, 8))] == [True, True, False, False]
    assert [taps.stored_as(shape) for shape in ((8, 3), (8, 1, 3), (1, 8, 3), (24,))] == [True, True, False, False]
    assert [matrix.stored_as(shape) for shape in ((2, 8), (1, 2, 8), (16,))] == [True, False, False]


def test_rope_layouts() -> None:
    assert spec_from_config(CONFIGS["mixtral"]).rope.layout is RopeLayout.INTERLEAVED
    assert spec_from_config(CONFIGS["olmoe"]).rope.layout is RopeLayout.HALVES


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (
            "llama",
            {"architectures": ["FalconForCausalLM"]},
            "model class FalconForCausalLM is not supported; supported: ",
        ),
        (
            "llama",
            {"architectures": ["JetMoeForCausalLM"]},
            "model class JetMoeForCausalLM is not supported: it needs experts of attention; supported: ",
        ),
        ("llama", {"architectures": None}, "names no model class"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ("llama", {"hidden_size": None}, "hidden_size is missing"),
        ("llama", {"hidden_size": "64"}, "hidden_size must be an integer, not '64'"),
        ("llama", {"hidden_size": True}, "hidden_size must be an integer, not True"),
        ("llama", {"num_key_value_heads": 3}, "4 heads do not divide by 3 kv heads"),
        ("llama", {"num_attention_heads": 0}, "heads is 0"),
        ("llama", {"num_hidden_layers": 10**9}, "layers is 1000000000"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope scaling 'dynamic' is not supported"),
        ("llama", {"rope_scaling": {"rope_type": "yarn"}}, "rope parameter factor must be a positive number, not None"),
        ("llama", {"rope_theta": "big"}, "rope parameter rope_theta must be a positive number, not 'big'"),
        (
            "mellum",
            {"rope_parameters": {"full_attention": {}, "sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "rope in layers with a window must be unscaled, not 'linear'",
        ),
        ("phimoe", {"router_jitter_noise": 0.1}, "router_jitter_noise=0.1 is not supported; supported: 0.01"),
        (
            "phimoe",
            {"rope_scaling": {**CONFIGS["phimoe"]["rope_scaling"], "long_mscale": 1.3}},
            "short_mscale and long_mscale must be the same",
        ),
        ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "short_factor must be a list of 8 num"),
        ("mellum", {"mlp_layer_types": ["dense"]}, "mlp_layer_types must say dense or sparse of every layer"),
        ("cohere2moe", {"shared_expert_combination_strategy": "sum"}, "combination_strategy='sum' is not supported"),
        ("cohere2moe", {"first_k_dense_replace": 7}, "first_k_dense_replace=7 of 6 layers is not supported"),
        ("command-r", {"use_qk_norm": True}, "use_qk_norm=True is not supported"),
        ("gemma", {"hidden_act": "gelu"}, "hidden_act='gelu' is not supported; supported: 'gelu_pytorch_tanh'"),
        ("gemma2", {"final_logit_softcapping": None}, "final_logit_softcapping is missing"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0 is not supported"),
        ("gemma4", {"hidden_size_per_layer_input": 256}, "hidden_size_per_layer_input=256 is not supported"),
        ("gemma4", {"num_kv_shared_layers": 2}, "num_kv_shared_layers=2 is not supported"),
        ("gemma4", {"rope_parameters": None}, "rope of full_attention must be proportional, not None"),
        ("gemma4", {"per_layer_config": {"0": {"head_dim": 32}}}, "per_layer_config must be the same for all layers"),
        ("granite", {"logits_scaling": 0.0}, "the scale logits_divisor is 0.0"),
        ("mimo-v2", {"swa_v_head_dim": 8}, "swa_v_head_dim=8 is not supported; supported: 16"),
        ("mimo-v2", {"swa_num_key_value_heads": 3}, "4 heads do not divide by 3 kv heads"),
        (
            "smallthinker",
            {"rope_layout": [1] * 5},
            "must leave out every 4th layer from the first, or there must",
        ),
        ("smallthinker", {"moe_layer_layout": [0, 1, 1, 1, 1]}, "moe_layer_layout with dense layers is not supported"),
        ("smallthinker", {"hidden_act": "silu"}, "hidden_act='silu' is not supported; supported: 'relu'"),
        ("aria", {"mlp_bias": True}, "mlp_bias=True is not supported"),
        ("afmoe", {"mup_enabled": False}, "mup_enabled=False is not supported; supported: True"),
        ("bailingmoe", {"norm_head": True}, "norm_head=True is not supported"),
        ("bailingmoe2", {"use_qk_norm": False}, "use_qk_norm=False is not supported"),
        ("deepseek", {"scoring_func": "sigmoid"}, "scoring_func='sigmoid' is not supported"),
        ("glm4moe", {"mlp_layer_types": ["dense"]}, "mlp_layer_types must say dense or sparse of every layer, not"),
        ("glm4moe", {"topk_group": 5}, "5 groups used of 4 with 8 experts"),
        ("dots1", {"layer_types": ["sliding_attention"] * 2}, "layer_types with sliding_attention are not supported"),
        (
            "minimax-m2",
            {"qk_norm_type": "per_head"},
            "qk_norm_type='per_head' is not supported",
        ),
        ("ernie4.5-moe", {"use_bias": True}, "use_bias=True is not supported"),
        ("ernie4.5-moe", {"moe_norm_min": 1e-3}, "moe_norm_min=0.001 is not supported; supported: 1e-12"),
        ("hunyuan-moe", {"moe_topk": [1, 2]}, "moe_topk differs by layer, which is not supported"),
        ("hunyuan-moe", {"use_cla": True}, "use_cla=True is not supported"),
        ("exaone-moe", {"layer_types": ["full_attention"] * 4}, "sliding_window without a layer of type sliding"),
        ("qwen3moe", {"mlp_only_layers": 1}, "mlp_only_layers must be a list, not 1"),
        ("qwen3moe", {"decoder_sparse_step": 0}, "decoder_sparse_step=0 is not supported; supported: 1 and more"),
        ("qwen3moe", {"num_experts_per_tok": 5}, "5 experts used of 4"),
        ("olmoe", {"clip_qkv": 8.0}, "clip_qkv=8.0 is not supported"),
        ("qwen2moe", {"shared_expert_intermediate_size": None}, "shared_expert_intermediate_size is missing"),
        ("qwen2moe", {"use_sliding_window": True}, "use_sliding_window=True is not supported"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window=True is not supported"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window=True is not supported"),
        ("smollm3", {"use_sliding_window": True}, "use_sliding_window=True is not supported"),
        ("smollm3", {"no_rope_layer_interval": 2}, "no_rope_layer_interval=2 is not supported; supported: 4"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 0]}, "no_rope_layers must be every 4th layer"),
        ("lfm2", {"conv_bias": True}, "conv_bias=True is not supported; supported: False"),
        ("lfm2", {"layer_types": ["conv", "mamba"]}, "layer_types must say conv or full_attention of every layer, not"),
        ("lfm2", {"layer_types": ["conv"]}, "1 layers with or without a state"),
        ("lfm2", {"conv_L_cache": 1}, "a convolution of 1 rows"),
        ("granitehybrid", {"mamba_proj_bias": True}, "mamba_proj_bias=True is not supported; supported: False"),
        ("granitehybrid", {"time_step_limit": [0.0, 1.0]}, "not supported; supported: \\[0, infinity\\]"),
        ("granitehybrid", {"layer_types": ["mamba", "moe"]}, "layer_types must say linear_attention or full_attention"),
        ("granite-all-attention", {"position_embedding_type": None}, "position_embedding_type=None is not supported"),
        ("jamba", {"mamba_conv_bias": False}, "mamba_conv_bias=False is not supported; supported: True"),
        ("jamba", {"mamba_dt_rank": 7}, "7 heads in 1 groups, together of 128, with states of 16 each"),
        ("nemotron_h", {"mlp_hidden_act": "silu"}, "mlp_hidden_act='silu' is not supported; supported: 'relu2'"),
        ("nemotron_h", {"hybrid_override_pattern": "M-E"}, "layers of both kinds, moe and mlp, are not supported"),
        ("nemotron_h", {"hybrid_override_pattern": "M?*"}, "must say mamba, attention, mlp or moe, not M\\?\\*"),
        ("nemotron_h", {"hybrid_override_pattern": None}, "layers_block_type or hybrid_override_pattern is missing"),
        ("nemotron_h_moe", {"moe_latent_size": 16}, "moe_latent_size=16 is not supported"),
        ("qwen3next", {"layer_types": ["mamba"] * 5}, "layer_types must say linear_attention or full_attention"),
        ("qwen3next", {"linear_num_key_heads": 4}, "6 heads in 4 groups, together of 96, with states of 8 each"),
        ("qwen3next", {"linear_key_head_dim": 0}, "6 heads in 2 groups, together of 96, with states of 0 each"),
        ("qwen3.5", {"text_config": [1]}, "text_config must be an object, not list"),
        ("qwen3.5", {"text_config": {"hidden_act": "gelu"}}, "hidden_act='gelu' is not supported"),
        ("qwen3.5-moe", {"rope_parameters": {"mrope_section": 3}}, "mrope_section must be a list of integers, not 3"),
        ("exaone4-windows", {"sliding_window_pattern": "LG"}, "sliding_window_pattern='LG' is not supported"),
        ("exaone4-windows", {"layer_types": ["full_attention"] * 4}, "sliding_window without a layer of type sliding"),
        ("hunyuan-dense", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope scaling 'dynamic' is not"),
        ("olmo3", {"layer_types": ["full_attention"]}, "layer_types must say sliding_attention or full_attention"),
        ("olmo3", {"num_hidden_layers": 10**9}, "layers is 1000000000"),
        ("olmo3", {"layer_types": ["chunked_attention"] * 5}, "of every layer, not .'chunked_attention'"),
        (
            "olmo3-yarn",
            {"rope_parameters": {"full_attention": {}, "sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "rope parameters of sliding_attention must be unscaled, not {'rope_type': 'linear'",
        ),
        (
            "gpt-oss",
            {"layer_types": ["full_attention"] * 2},
            "layer_types must be sliding_attention and full_attention",
        ),
        ("gpt-oss", {"sliding_window": None}, "sliding_window is missing"),
        ("gpt-oss", {"attention_bias": False}, "attention_bias=False is not supported; supported: True"),
        ("gpt-oss", {"swiglu_limit": 5.0}, "swiglu_limit=5.0 is not supported; supported: 7.0"),
        (
            "gpt-oss",
            {"rope_scaling": {**CONFIGS["yarn"]["rope_parameters"], "truncate": True}},
            "yarn rope scaling with truncate=true is not supported for this model",
        ),
        (
            "yarn",
            {"rope_parameters": {**CONFIGS["yarn"]["rope_parameters"], "truncate": False}},
            "yarn rope scaling with truncate=false is not supported for this model",
        ),
    ],
)
def test_refusals_name_the_cause(base: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        build_plan(spec_from_config({**CONFIGS[base], **change}))


def test_unknown_gguf_architecture() -> None:
    message = r"model architecture 'mamba' is not supported; supported: .*ernie4_5, .*gemma2, .*gpt-oss, "
    with pytest.raises(UnsupportedError, match=message):
        spec_from_gguf(Entries({"general.architecture": "mamba"}), {})
