"""Other shapes of the golden checkpoints: what a config may say of a family, drawn at random."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.golden.make import GOLDENS, Golden

Config = dict[str, Any]
WIDTHS = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size")
MORE_WIDTHS = ("prefix_dense_intermediate_size", "moe_shared_expert_intermediate_size")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
USED = ("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts")
SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
FLAGS = (
    *("attention_bias", "mlp_bias", "qkv_bias", "use_qk_norm", "norm_topk_prob", "attention_out_bias"),
    *("use_sliding_window", "attn_temperature_tuning"),
)
REFUSED_FLAGS = {"mlp_bias": ("aria", "deepseek-v2", "hy-v3", "nemotron-h")}
"""Which families (by the beginnings of names) refuse a flag by name, so that nothing more would be tried."""
KINDS = ("layer_types", "mlp_layer_types", "layers_block_type")
WINDOWS = ("sliding_window",)
TIED = "tie_word_embeddings"
SCALINGS: dict[str, Config] = {
    "default": {},
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "yarn, louder": {"factor": 8.0, "original_max_position_embeddings": 8, "attention_factor": 1.2},
    "yarn, wider": {"factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 8.0, "beta_slow": 0.5},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}
OF_DISGUISES = ("deepseek", "bailingmoe", "bailingmoe2", "smallthinker")
"""Families whose checkpoints are those of others, which have to say the same."""


WITH_WINDOWS = (
    *("qwen2", "qwen2moe", "qwen2moe-fused", "qwen2moe-dense-layers", "qwen3"),
    *("dots1", "smollm3", "gpt-oss", "gpt-oss-yarn"),
)
"""Families that have windows in layers that configs name, though the golden checkpoints do not say so."""


def drawn(name: str, seed: int) -> Golden:
    """A golden checkpoint with other sizes, counts, kinds of layers, biases and rope, and stored in another way; the
    same for the same seed.
    """
    golden, rng = GOLDENS[name], random.Random(f"{name} {seed}")
    c = copy.deepcopy(golden.config)
    kind = "TextConfig" if golden.text else "Config"
    usual = getattr(transformers, f"{golden.family}{kind}")(**copy.deepcopy(c)).to_dict()
    own = name in OF_DISGUISES
    if golden.family == "Dbrx":
        _dbrx(c, rng)
    else:
        _draw(name, c, usual, rng, own)
    for key in ("rms_norm_eps", "layer_norm_eps", "norm_eps"):
        if c.get(key):
            c[key] = rng.choice((1e-5, 1e-6, 1e-4))
    louder = {part: gain * rng.choice((1.0, 1.3)) for part, gain in golden.gains.items()}
    if own:
        _disguised(name, c, rng)
        return dataclasses.replace(golden, config=c, gains=louder, shard_size=None)
    whole = golden.fused or golden.mxfp4
    return dataclasses.replace(
        golden,
        config=c,
        gains=louder,
        shard_size=None if whole else rng.choice((None, None, "40KB")),
        dtype=golden.dtype if golden.mxfp4 else rng.choice((torch.bfloat16, torch.float16, torch.float32)),
        disguise=with_old_names if rng.random() < 0.4 else None,
    )


def with_old_names(folder: Path) -> None:
    """The same folder with a config.json as transformers wrote it before its version 5."""
    c = json.loads((folder / "config.json").read_text())
    rope = c.get("rope_parameters")
    if rope is None or any(isinstance(value, dict) for value in rope.values()):
        return
    del c["rope_parameters"]
    c["rope_theta"], kind = rope.pop("rope_theta"), rope.pop("rope_type")
    if "partial_rotary_factor" in rope:
        c["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    c["rope_scaling"] = {"type": kind, **rope} if kind != "default" or rope else None
    c["torch_dtype"] = c.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(c))


def _draw(name: str, c: Config, usual: Config, rng: random.Random, own: bool) -> None:
    _layers(name, c, usual, rng)
    heads = _heads(name, c, usual, rng)
    c["vocab_size"] = rng.choice((67, 96, 101, 130))
    if "vocab_size_per_layer_input" in c:
        c["vocab_size_per_layer_input"] = c["vocab_size"]
    for key in (*WIDTHS, *MORE_WIDTHS):
        if key in c:
            c[key] = rng.choice((16, 24, 40, 48, 72, 136, 256))
    _experts(c, rng)
    for key in WINDOWS:
        if c.get(key):
            c[key] = rng.randint(1, 9)
    for flag in FLAGS if not own else ():
        named = flag == "use_sliding_window" and flag in c
        if isinstance(usual.get(flag), bool) and not named and not name.startswith(REFUSED_FLAGS.get(flag, ("?",))):
            c[flag] = rng.random() < 0.5
    if not own and isinstance(usual.get(TIED), bool):
        c[TIED] = rng.random() < 0.4
    if "attention_chunk_size" in c:
        c["attention_chunk_size"] = rng.choice((3, 6, 8192))
        c |= {"floor_scale": rng.choice((3, 5, 8192)), "attn_scale": rng.choice((0.1, 0.5))}
    _states(c, rng)
    _rope(c, usual, heads, rng, scaled=not own and not name.startswith(("phi3", "lara")))
    if name == "phimoe":
        c["num_experts_per_tok"] = 2


def _dbrx(c: Config, rng: random.Random) -> None:
    """The same by names of its own."""
    kv, size = rng.choice((1, 2, 3)), rng.choice((8, 12, 24, 32))
    heads, experts = kv * rng.choice((1, 2, 4)), rng.choice((2, 5, 6, 8, 16))
    c |= {"vocab_size": rng.choice((67, 96, 101)), "d_model": heads * size, "n_heads": heads}
    clamp = rng.choice((0.5, 1.0, 8.0))
    base = rng.choice((100.0, 1e4, 5e5))
    c["rope_parameters"] = {"rope_type": "default", "rope_theta": base}
    c |= {
        "n_layers": rng.choice((1, 2, 3, 5)),
        "attn_config": {"kv_n_heads": kv, "clip_qkv": clamp, "rope_theta": base},
    }
    ffn = {"ffn_hidden_size": rng.choice((16, 40, 72)), "moe_num_experts": experts}
    norm = rng.choice((1.0, 1.0, None))
    c["ffn_config"] = {**ffn, "moe_top_k": rng.randint(1, min(experts, 4)), "moe_normalize_expert_weights": norm}


def _layers(name: str, c: Config, usual: Config, rng: random.Random) -> None:
    """Up to eight layers, each of any kind."""
    count = rng.choice((1, 2, 2, 3, 4, 5, 8))
    if name in WITH_WINDOWS and rng.random() < 0.5:
        c["layer_types"] = ["sliding_attention", "full_attention"]
        c |= {"sliding_window": 5, **({"use_sliding_window": True} if "use_sliding_window" in usual else {})}
    for key in KINDS:
        if key in c:
            of_layers = list(c[key])
            c[key] = [rng.choice(of_layers) for _ in range(max(count, len(set(of_layers))))]
            for i, kind in enumerate(sorted(set(of_layers))):  # each at least once
                c[key][i] = kind
            rng.shuffle(c[key])
            count = len(c[key])
    if "layers_block_type" not in c:
        c["num_hidden_layers"] = count
    if c.get("no_rope_layers") or name == "smollm3":
        c["no_rope_layers"] = [rng.randint(0, 1) for _ in range(count)]
    if "interleave_moe_layer_step" in c:
        c["interleave_moe_layer_step"] = rng.randint(1, count)
    if c.get("layer_rope_theta"):
        c["layer_rope_theta"] = [rng.choice((0.0, 100.0)) for _ in range(count)]
    for key in ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"):
        if key in c:
            c[key] = rng.randint(0, count - 1)
    if "mlp_only_layers" in c:
        c["mlp_only_layers"] = [i for i in range(count) if rng.random() < 0.4 and i < count - 1]
    if "num_kv_shared_layers" in c:
        c["num_kv_shared_layers"] = rng.randint(0, count - 1)
    if "decoder_sparse_step" in c:
        c["decoder_sparse_step"] = rng.randint(1, min(count, 3))


def _heads(name: str, c: Config, usual: Config, rng: random.Random) -> int:
    """Heads, and how wide the model is; the size of a head."""
    kv, ratio = rng.choice((1, 2, 3, 5)), rng.choice((1, 2, 4, 8))
    heads = kv * ratio if kv * ratio <= 16 else kv
    size = rng.choice((8, 12, 16, 20, 24, 32, 36, 40))
    if name == "mimo-v2":  # a third of each head is rotated, and layers with a window have twice as many key heads
        kv, heads, size = (kv, 2 * kv * (ratio // 2 or 1), rng.choice((12, 24, 36, 48)))
    c["num_attention_heads"], c["num_key_value_heads"] = heads, kv
    if "num_attention_heads_per_layer" in c:
        within = kv * rng.choice((1, 2, 3))
        counts = {"sliding_attention": within, "full_attention": heads}
        c["num_attention_heads_per_layer"] = [counts[kind] for kind in c["layer_types"]]
        c["gating"] = rng.choice((True, "per-element"))
    if "kv_lora_rank" in c:
        c["num_key_value_heads"] = heads
        c["hidden_size"] = heads * rng.choice((8, 12, 16, 24))
        c |= {"kv_lora_rank": rng.choice((16, 24, 32, 40)), "qk_nope_head_dim": rng.choice((16, 24, 32))}
        c |= {"qk_rope_head_dim": rng.choice((8, 16, 24)), "v_head_dim": rng.choice((16, 24, 40))}
        if c.get("q_lora_rank"):
            c["q_lora_rank"] = rng.choice((16, 24, 40))
        return int(c["qk_rope_head_dim"])
    if c.get("head_dim") or (usual.get("head_dim") and rng.random() < 0.5):
        c["head_dim"], c["hidden_size"] = size, heads * rng.choice((8, 12, 16, 24, 40))
        for key in ("v_head_dim", "global_head_dim"):
            if key in c:
                c[key] = rng.choice((16, 24, 48))
    else:
        c["hidden_size"] = heads * size
        if "head_dim" in usual:
            c["head_dim"] = size
    return size


def _experts(c: Config, rng: random.Random) -> None:
    experts = rng.choice((4, 6, 7, 8, 12, 16, 32))
    groups = rng.choice([n for n in (1, 2, 4) if experts % n == 0 and experts // n > 2] or [1])
    kept = rng.randint(1, groups)
    most = kept * (experts // groups)
    used = rng.choice((1, most, *range(1, min(6, most) + 1)))
    for key in EXPERTS:
        if c.get(key):
            c[key] = experts
    for key in USED:
        if c.get(key):
            c[key] = used
    for key in SHARED:
        if key in c:
            c[key] = rng.randint(1, 3)
    for key in ("n_group", "topk_group"):
        if key in c:
            c[key] = groups if key == "n_group" else kept
    for key in ("routed_scaling_factor", "router_scaling_factor", "route_scale"):
        if key in c:
            c[key] = rng.choice((1.0, 0.5, 2.5))


def _states(c: Config, rng: random.Random) -> None:
    """Sizes of what is beside attention."""
    if "linear_num_key_heads" in c:
        keys = rng.choice((1, 2, 3))
        c |= {"linear_num_key_heads": keys, "linear_num_value_heads": keys * rng.choice((1, 2, 4))}
        c |= {"linear_key_head_dim": rng.choice((8, 16, 24)), "linear_conv_kernel_dim": rng.choice((2, 4))}
        same = rng.random() < 0.6
        c["linear_value_head_dim"] = c["linear_key_head_dim"] if same else rng.choice((8, 16, 24))
    if "linear_num_heads" in c:
        heads = c["num_attention_heads"]
        c |= {"linear_num_heads": rng.choice((1, 3, heads, heads)), "linear_head_dim": rng.choice((8, 16, 20))}
        c["linear_conv_kernel_dim"] = rng.choice((2, 4))
    if "mamba_d_state" in c:
        c |= {"mamba_d_state": rng.choice((8, 16, 24)), "mamba_d_conv": rng.choice((2, 4))}
        expand = rng.choice((1, 2))
        heads = rng.choice([n for n in (2, 4, 6, 8) if expand * c["hidden_size"] % n == 0])
        c |= {"mamba_n_heads": heads, "mamba_n_groups": rng.choice((1, 2)), "mamba_expand": expand}
        c["mamba_d_head"] = expand * c["hidden_size"] // heads
    if "mamba_d_ssm" in c:
        c["mamba_d_ssm"] = c["mamba_n_heads"] * rng.choice((4, 8, 12))
        c["mamba_d_head"] = c["mamba_d_ssm"] // c["mamba_n_heads"]
    if "ssm_state_size" in c:
        groups = rng.choice((1, 2, 3))
        c |= {"ssm_state_size": rng.choice((8, 16, 24)), "n_groups": groups, "conv_kernel": rng.choice((2, 4))}
        c |= {"mamba_num_heads": groups * rng.choice((1, 2, 4)), "mamba_head_dim": rng.choice((8, 16, 24))}


def _rope(c: Config, usual: Config, size: int, rng: random.Random, *, scaled: bool) -> None:
    if "rope_parameters" not in usual:
        return
    given = c.get("rope_parameters") or {}
    usual = usual.get("rope_parameters") or {}
    base = rng.choice((100.0, 10000.0, 5e5))
    if any(isinstance(value, dict) for value in (*given.values(), *usual.values())):
        return  # those of layers of different kinds stay
    partial = given.get("partial_rotary_factor")
    if partial and partial < 1.0:
        partial = rng.choice([p for p in (0.25, 0.5, 0.75, 1.0) if size * p % 2 == 0 and size * p >= 4])
    dims = int(size * (partial or 1.0))
    kept = {key: value for key, value in given.items() if key in ("alpha", "llama_4_scaling_beta", "mrope_interleaved")}
    if "short_factor" in given:
        factors = {f"{kind}_factor": [1.0 + rng.random() for _ in range(dims // 2)] for kind in ("short", "long")}
        c["rope_parameters"] = {**given, **factors, "rope_theta": base}
    else:
        kind = rng.choice(list(SCALINGS)) if scaled and rng.random() < 0.5 and "alpha" not in kept else "default"
        kind = given.get("rope_type", kind) if kept else kind
        scaling = {**given, "rope_theta": base} if kept else {"rope_theta": base, **SCALINGS[kind]}
        c["rope_parameters"] = {"rope_type": kind.partition(",")[0], **scaling}
    if partial:
        c["rope_parameters"]["partial_rotary_factor"] = partial
    if "mrope_section" in given:
        third = dims // 6
        c["rope_parameters"]["mrope_section"] = [dims // 2 - 2 * third, third, third]


def _disguised(name: str, c: Config, rng: random.Random) -> None:
    """What the disguise takes for granted."""
    if name in ("deepseek", "bailingmoe"):
        shared = rng.randint(1, 3)
        c["shared_expert_intermediate_size"] = shared * c["moe_intermediate_size"]
    if name == "deepseek":
        c["mlp_only_layers"] = list(range(rng.randint(0, c["num_hidden_layers"] - 1)))
    if name == "smallthinker":
        c["sliding_window"] = None
