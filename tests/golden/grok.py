"""Grok in torch, which `transformers` has not: a plain forward pass, by the sources that the architecture names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import gelu, linear

Tensors = dict[str, torch.Tensor]
SIZES = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIG: dict[str, Any] = {
    "architectures": ["Grok1ForCausalLM"],
    "model_type": "grok-1",
    **SIZES,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "gelu",
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "embedding_multiplier_scale": 8.0,
    "output_multiplier_scale": 0.5,
    "attn_output_multiplier": 0.4,
    "attn_logit_softcapping": 5.0,
    "tie_word_embeddings": False,
}
SECOND = {"residual_moe": True, "intermediate_size": 48, "moe_intermediate_size": 32, "final_logit_softcapping": 4.0}
SMALLEST_GAP = 0.04


def weights(config: dict[str, Any], seed: int) -> Tensors:
    """Random ones, in bfloat16."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes(config).items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            value = (0.15 if "post_" in name else 1.0) * (1 + 0.3 * noise)
        else:
            value = noise * (0.125 if "embed" in name else 1.5 * shape[1] ** -0.5)
        found[f"{name}.weight"] = value.to(torch.bfloat16)
    return found


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of all weights."""
    width, kv = config["hidden_size"], config["num_key_value_heads"] * config["head_dim"]
    experts, hidden = config["num_local_experts"], config.get("moe_intermediate_size", config["intermediate_size"])
    found: dict[str, tuple[int, ...]] = {"model.norm": (width,)}
    found |= dict.fromkeys(("model.embed_tokens", "lm_head"), (config["vocab_size"], width))
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        moe = f"{layer}.block_sparse_moe"
        found |= {f"{layer}.{when}_norm": (width,) for when in ("pre_attn", "post_attn", "pre_moe", "post_moe")}
        for part, size in {"q": width, "k": kv, "v": kv, "o": width}.items():
            found[f"{layer}.self_attn.{part}_proj"] = (size, width)
        found[f"{moe}.gate"] = (experts, width)
        for e in range(experts):
            found |= network_shapes(f"{moe}.experts.{e}", ("w1", "w3", "w2"), hidden, width)
        if config.get("residual_moe"):
            names = ("gate_proj", "up_proj", "down_proj")
            found |= network_shapes(f"{layer}.mlp", names, config["intermediate_size"], width)
    return found


def network_shapes(module: str, names: tuple[str, str, str], hidden: int, width: int) -> dict[str, tuple[int, ...]]:
    """Of gate, up and down."""
    gate, up, down = (f"{module}.{name}" for name in names)
    return {gate: (hidden, width), up: (hidden, width), down: (width, hidden)}


class Model:
    """Its logits, and how far from a tie the closest choice of experts was."""

    def __init__(self, config: dict[str, Any], tensors: Tensors) -> None:
        self.config, self.w = config, {name: x.float() for name, x in tensors.items()}
        self.gap = float("inf")

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"]) * self.w[f"{name}.weight"]

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        half, base = x.shape[-1] // 2, self.config["rope_theta"]
        angle = torch.arange(len(x))[:, None, None] * base ** (-torch.arange(half) / half)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)

    def attention(self, x: torch.Tensor, layer: str) -> torch.Tensor:
        c, size = self.config, self.config["head_dim"]
        q, k, v = (
            linear(x, self.w[f"{layer}.self_attn.{part}_proj.weight"]).unflatten(-1, (-1, size)) for part in "qkv"
        )
        q, k = self.rotate(q), self.rotate(k)
        shared = c["num_attention_heads"] // c["num_key_value_heads"]
        k, v = (each.repeat_interleave(shared, dim=1) for each in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * c["attn_output_multiplier"]
        scores = c["attn_logit_softcapping"] * torch.tanh(scores / c["attn_logit_softcapping"])
        scores = scores.masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), -torch.inf)
        y = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)
        return linear(y, self.w[f"{layer}.self_attn.o_proj.weight"])

    def network(self, x: torch.Tensor, module: str, gate: str, up: str, down: str) -> torch.Tensor:
        hidden = gelu(linear(x, self.w[f"{module}.{gate}.weight"]), approximate="tanh")
        return linear(hidden * linear(x, self.w[f"{module}.{up}.weight"]), self.w[f"{module}.{down}.weight"])

    def mixture(self, x: torch.Tensor, layer: str) -> torch.Tensor:
        used, module = self.config["num_experts_per_tok"], f"{layer}.block_sparse_moe"
        logits = linear(x, self.w[f"{module}.gate.weight"])
        ranked = logits.sort(descending=True).values
        self.gap = min(self.gap, float((ranked[:, used - 1] - ranked[:, used]).min()))
        best = logits.topk(used)
        shares = torch.zeros_like(logits).scatter(1, best.indices, best.values.softmax(-1))
        experts = [self.network(x, f"{module}.experts.{e}", "w1", "w3", "w2") for e in range(logits.shape[1])]
        routed = sum(shares[:, e : e + 1] * y for e, y in enumerate(experts))
        if not self.config.get("residual_moe"):
            return routed
        return (routed + self.network(x, f"{layer}.mlp", "gate_proj", "up_proj", "down_proj")) / 2**0.5

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """[length, vocabulary] of one sequence."""
        c = self.config
        x = self.w["model.embed_tokens.weight"][tokens] * c["embedding_multiplier_scale"]
        for i in range(c["num_hidden_layers"]):
            layer = f"model.layers.{i}"
            x = x + self.norm(self.attention(self.norm(x, f"{layer}.pre_attn_norm"), layer), f"{layer}.post_attn_norm")
            x = x + self.norm(self.mixture(self.norm(x, f"{layer}.pre_moe_norm"), layer), f"{layer}.post_moe_norm")
        y = linear(self.norm(x, "model.norm"), self.w["lm_head.weight"]) * c["output_multiplier_scale"]
        cap = c.get("final_logit_softcapping")
        return cap * torch.tanh(y / cap) if cap else y


@torch.no_grad()
def make(folder: Path, config: dict[str, Any], sequences: int, length: int) -> str:
    """Write one folder, as `tests.golden.make` does."""
    for seed in range(1000):
        tensors = weights(config, seed)
        tokens = torch.randint(config["vocab_size"], (sequences, length), generator=torch.Generator().manual_seed(seed))
        model = Model(config, tensors)
        logits = torch.stack([model.logits(row) for row in tokens])
        if model.gap >= SMALLEST_GAP:
            break
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "logits.npz", tokens=tokens.numpy(), logits=logits.numpy())
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return f"seed {seed}, logits of standard deviation {float(logits.std()):.2f}"
