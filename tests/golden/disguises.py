"""Checkpoints of families that `transformers` does not have, out of those of models that compute the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
Config = dict[str, Any]


def rewritten(folder: Path, change: Callable[[Tensors, Config], tuple[Tensors, Config]]) -> None:
    """The same folder, with other tensors and another config.json."""
    config = json.loads((folder / "config.json").read_text())
    tensors, config = change(load_file(folder / "model.safetensors"), config)
    save_file({name: x.contiguous() for name, x in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def without_gates(tensors: Tensors) -> Tensors:
    """Qwen2-MoE's shared experts, whose gates are zeros and so let half through, as ones without gates."""
    found = {}
    for name, x in tensors.items():
        if "shared_expert_gate" in name:
            assert not x.any()
            continue
        half = 0.5 if name.endswith("shared_expert.down_proj.weight") else 1.0
        found[name.replace("shared_expert.", "shared_experts.")] = x * half
    return found


def deepseek(folder: Path) -> None:
    """DeepSeek-MoE, out of Qwen2-MoE."""

    def change(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
        own = {
            "architectures": ["DeepseekForCausalLM"],
            "model_type": "deepseek",
            "n_routed_experts": config.pop("num_experts"),
            "n_shared_experts": config.pop("shared_expert_intermediate_size") // config["moe_intermediate_size"],
            "first_k_dense_replace": len(config.pop("mlp_only_layers")),
            "moe_layer_freq": 1,
            "scoring_func": "softmax",
        }
        return without_gates(tensors), {**config, **own}

    rewritten(folder, change)


def bailing_tensors(tensors: Tensors) -> Tensors:
    """One product for queries, keys and values, and other names."""
    found: Tensors = {}
    for name, x in tensors.items():
        if ".q_proj." in name:
            parts = [tensors[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            found[name.replace("self_attn.q_proj", "attention.query_key_value")] = torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            for theirs, ours in BAILING.items():
                name = name.replace(theirs, ours)
            found[name] = x
    return found


BAILING = {
    "embed_tokens": "word_embeddings",
    "self_attn.o_proj": "attention.dense",
    "self_attn.q_norm": "attention.query_layernorm",
    "self_attn.k_norm": "attention.key_layernorm",
    "e_score_correction_bias": "expert_bias",
}


def bailing(folder: Path) -> None:
    """Ling, out of Qwen2-MoE."""

    def change(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
        own = {
            "architectures": ["BailingMoeForCausalLM"],
            "model_type": "bailing_moe",
            "num_shared_experts": config.pop("shared_expert_intermediate_size") // config["moe_intermediate_size"],
            "first_k_dense_replace": 0,
            "norm_head": False,
            "use_qkv_bias": config.pop("qkv_bias"),
        }
        return bailing_tensors(without_gates(tensors)), {**config, **own}

    rewritten(folder, change)


def bailing2(folder: Path) -> None:
    """Ling 2, out of GLM-4.5."""

    def change(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
        own = {
            "architectures": ["BailingMoeV2ForCausalLM"],
            "model_type": "bailing_moe",
            "num_experts": config.pop("n_routed_experts"),
            "num_shared_experts": config.pop("n_shared_experts"),
            "use_qkv_bias": config.pop("attention_bias"),
            "score_function": "sigmoid",
        }
        config.pop("num_nextn_predict_layers")
        return bailing_tensors(tensors), {**config, **own}

    rewritten(folder, change)


def route_before_attention(model: torch.nn.Module) -> None:
    """Routers that read what enters their layer, as it is."""
    for layer in model.model.layers:
        entered: dict[str, torch.Tensor] = {}

        def keep(module: Any, inputs: tuple[torch.Tensor, ...], entered: Any = entered) -> None:
            entered["x"] = inputs[0]

        def take(module: Any, inputs: tuple[torch.Tensor, ...], entered: Any = entered) -> tuple[torch.Tensor, ...]:
            return (entered["x"].reshape(inputs[0].shape), *inputs[1:])

        layer.register_forward_pre_hook(keep)
        layer.mlp.gate.register_forward_pre_hook(take)


def smallthinker(folder: Path) -> None:
    """SmallThinker, out of Mixtral with such routers, and without windows."""
    names = {".gate.": ".primary_router.", ".w1.": ".gate.", ".w2.": ".down.", ".w3.": ".up."}

    def change(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
        found = {}
        for name, x in tensors.items():
            part = next((part for part in names if part in name), None)
            found[name.replace(part, names[part]) if part else name] = x
        own = {
            "architectures": ["SmallThinkerForCausalLM"],
            "model_type": "smallthinker",
            "moe_num_primary_experts": config.pop("num_local_experts"),
            "moe_num_active_primary_experts": config.pop("num_experts_per_tok"),
            "moe_ffn_hidden_size": config.pop("intermediate_size"),
            "moe_primary_router_apply_softmax": True,
            "sliding_window_layout": [0] * config["num_hidden_layers"],
            "rope_layout": [1] * config["num_hidden_layers"],
            "sliding_window_size": 4096,
        }
        return found, {**config, **own}

    rewritten(folder, change)
