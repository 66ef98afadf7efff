"""The block types that llama.cpp's `llama-quantize` chooses, and the models on which that was observed.

Run as a program with the folder of llama.cpp's binaries, it writes `llama_types.json` beside it: model → recipe → part
of a layer (or tensor) → types by layer, as runs. Recipes end in `WEIGHED` where it chooses otherwise with an importance
matrix.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from math import prod
from pathlib import Path

import numpy as np
from edgert_models.graph import Weight
from edgert_models.nextn import needed, nextn_weights
from edgert_models.registry import build_plan, metadata_from_spec
from edgert_models.rope import Rope, RopeLayout
from edgert_models.router import Router
from edgert_models.spec import ModelSpec, Recurrence
from edgert_quant.blocks import BlockType
from edgert_quant.gguf import GgufWriter
from edgert_quant.imatrix import Importance, Sums, write_imatrix

WEIGHED = ", imatrix"
TABLE = Path(__file__).with_name("llama_types.json")
_NAMES = "f32 f16 bf16 q8_0 q6_k q5_k_m q5_k_s q4_k_m q4_k_s q4_0 iq4_nl iq4_xs q3_k_l q3_k_m q3_k_s q2_k q2_k_s"
_IQ_NAMES = "iq3_m iq3_s iq3_xs iq3_xxs iq2_m iq2_s iq2_xs iq2_xxs iq1_m iq1_s"
RECIPES = (*_NAMES.split(), *_IQ_NAMES.split(), "mxfp4_moe", "tq2_0", "tq1_0")
_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
_LINE = re.compile(r"^\[ *\d+/ *\d+\] +(\S+) +- \[.*?\], type = +(\w+), (.*)$", re.MULTILINE)

_DENSE = ModelSpec(
    architecture="llama",
    vocabulary=8,
    context=64,
    width=256,
    layers=16,
    heads=4,
    kv_heads=1,
    head_size=64,
    rope=Rope(dims=64, layout=RopeLayout.INTERLEAVED),
    norm_eps=1e-5,
    feed_forward=256,
)
_EXPERTS = replace(_DENSE, feed_forward=0, experts=4, experts_used=2, expert_feed_forward=256, layers=12)
_NARROW = {"heads": 3, "head_size": 32, "rope": Rope(dims=32, layout=RopeLayout.HALVES)}
_ATTENDING = {"architecture": "lfm2", "qk_norm": "head", "kv_heads": 2, "layers": 10}
_MAMBA = {"kernel": 4, "inner": 512, "state": 64, "heads": 8, "groups": 2, "least": 0.001}
_KINDS = "M*EMEM*E*M"  # Mamba, attention, or a feed-forward network
_RECURRENT = {
    "layers": len(_KINDS),
    "kv_heads": 2,
    "positions": False,
    "recurrence": Recurrence(
        layers=tuple(kind == "M" for kind in _KINDS), feeds=tuple(kind == "E" for kind in _KINDS), **_MAMBA
    ),
}
MODELS = {
    "llama": _DENSE,
    "llama-tied": replace(_DENSE, tied=True, layers=3),
    "llama-70b": replace(_DENSE, layers=80, heads=2, head_size=16, rope=Rope(dims=16, layout=RopeLayout.INTERLEAVED)),
    "llama-narrow": replace(_DENSE, **_NARROW, width=96, feed_forward=160, layers=9),
    "llama-odd": replace(_DENSE, **_NARROW, width=80, feed_forward=72, layers=2, tied=True),
    "mixtral": replace(_EXPERTS, experts=8),
    "mixtral-narrow": replace(_EXPERTS, **_NARROW, width=512, expert_feed_forward=96, layers=5),
    "qwen3moe": replace(_EXPERTS, architecture="qwen3moe", experts=6, qk_norm="head", layers=13),
    "qwen2moe": replace(
        _EXPERTS,
        architecture="qwen2moe",
        experts=6,
        shared_feed_forward=512,
        feed_forward=1024,
        attention_bias=True,
        shared_gate=True,
        router=Router(normalize=False),
        layers=26,
    ),
    "phi3": replace(_DENSE, architecture="phi3", fused_attention=True, fused_feed_forward=True, layers=9),
    "olmoe": replace(_EXPERTS, architecture="olmoe", experts=8, kv_heads=4, qk_norm="all", layers=8),
    "lfm2": replace(_DENSE, **_ATTENDING, recurrence=Recurrence(layers=(True, False, False, True, True) * 2, kernel=3)),
    "nemotron_h": replace(_DENSE, **_RECURRENT, architecture="nemotron_h"),
    "nemotron_h_moe": replace(
        _EXPERTS,
        **_RECURRENT,
        architecture="nemotron_h_moe",
        experts=6,
        shared_feed_forward=512,
        sparse=tuple(kind == "E" for kind in _KINDS),
        feed_forward=256,
        router=Router(scoring="sigmoid", epsilon=1e-20, bias=True),
    ),
    "qwen3next": replace(
        _EXPERTS,
        architecture="qwen3next",
        qk_norm="head",
        layers=9,
        nextn=1,
        shared_feed_forward=512,
        shared_gate=True,
        recurrence=Recurrence(
            layers=(True, True, False) * 3, period=3, kernel=4, inner=256, state=64, heads=4, groups=2
        ),
    ),
    "gpt-oss": replace(
        _EXPERTS, **_NARROW, architecture="gpt-oss", width=288, expert_feed_forward=288, experts=6, window=32, layers=9
    ),
}


def weights_of(spec: ModelSpec) -> list[Weight]:
    """A model's weights, and those of its layers for multi-token prediction, made as one that attends."""
    plan = build_plan(spec)
    like = next((f"blk.{i}." for i in range(spec.layers) if not spec.recurs(i)), "")
    found = list(plan.weights.values())
    for layer in range(spec.layers, spec.layers + spec.nextn):
        prefix, must = f"blk.{layer}.", needed(plan)
        for weight in nextn_weights(plan, layer):
            if like + (own := weight.name.removeprefix(prefix)) in plan.weights or own in must:
                found.append(weight)
    return found


def write_zeros(path: Path, spec: ModelSpec) -> None:
    """A model of zeros, in F32."""
    weights = weights_of(spec)
    with GgufWriter(path) as writer:
        writer.add_metadata("general.architecture", spec.architecture)
        for key, value in metadata_from_spec(spec).items():
            writer.add_metadata(key, value)
        for weight in weights:
            writer.add_tensor(weight.name, BlockType.F32, weight.shape)
        writer.begin()
        for weight in weights:
            writer.write(weight.name, bytes(4 * prod(weight.shape)))


def write_ones(path: Path, spec: ModelSpec) -> None:
    """An importance matrix for which all inputs are alike."""
    matrices = [weight for weight in weights_of(spec) if not weight.role.stays_float]
    experts = {weight.name: weight.shape[0] if len(weight.shape) == 3 else 1 for weight in matrices}
    sums = {
        weight.name: Sums(
            np.ones((experts[weight.name], weight.shape[-1]), np.float32), np.ones(experts[weight.name], np.int64)
        )
        for weight in matrices
    }
    write_imatrix(path, Importance(sums, ("ones",), 1, 512))


def observed(binaries: Path, model: Path, recipe: str, *options: str) -> dict[str, str]:
    """Tensor → type, as `llama-quantize` reports them without writing a file."""
    command = [str(binaries / "llama-quantize"), "--dry-run", *options, str(model), recipe]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    types = {}
    for name, stored, rest in _LINE.findall(done.stdout + done.stderr):
        changed = re.search(r"->\s+[\d.]+ MiB \((\w+)\)", rest)
        types[name] = (changed[1] if changed else stored).upper()
    return types


def by_part(types: Mapping[str, str]) -> dict[str, str]:
    """Tensor → type, as part → runs of types over the layers."""
    parts: dict[str, dict[int, str]] = {}
    for name, kind in types.items():
        match = _LAYER.fullmatch(name)
        key, layer = (match[2], int(match[1])) if match else (name, 0)
        parts.setdefault(key, {})[layer] = kind
    return {key: _runs(own[layer] for layer in sorted(own)) for key, own in sorted(parts.items())}


def _runs(types: Iterable[str]) -> str:
    return " ".join(f"{kind}*{len(list(group))}" for kind, group in groupby(types))


def table(binaries: Path) -> dict[str, dict[str, dict[str, str]]]:
    """What this llama.cpp chooses for all models and recipes."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        matrix = Path(folder) / "imatrix.gguf"
        for name, spec in MODELS.items():
            path = Path(folder) / f"{name}.gguf"
            write_zeros(path, spec)
            write_ones(matrix, spec)
            found[name] = {recipe: by_part(observed(binaries, path, recipe)) for recipe in RECIPES}
            for recipe in RECIPES:
                weighed = by_part(observed(binaries, path, recipe, "--imatrix", str(matrix)))
                if weighed != found[name][recipe]:
                    found[name][recipe + WEIGHED] = weighed
            path.unlink()
    return found


if __name__ == "__main__":
    TABLE.write_text(json.dumps(table(Path(sys.argv[1])), indent=1) + "\n")
