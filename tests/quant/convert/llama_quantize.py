"""The block types that llama.cpp's `llama-quantize` chooses, and the models on which that was observed.

Run as a program with the folder of llama.cpp's binaries, it writes `llama_types.json` beside it: model → recipe → part
of a layer (or tensor) → types by layer, as runs.
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
from pathlib import Path

from edgert_models.graph import Role
from edgert_models.registry import build_plan, metadata_from_spec
from edgert_models.rope import Rope, RopeLayout
from edgert_models.router import Router
from edgert_models.spec import ModelSpec
from edgert_quant.blocks import BlockType
from edgert_quant.gguf import GgufWriter

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
    "gpt-oss": replace(
        _EXPERTS, **_NARROW, architecture="gpt-oss", width=288, expert_feed_forward=288, experts=6, window=32, layers=9
    ),
}


def write_zeros(path: Path, spec: ModelSpec) -> None:
    """A model of zeros, in F32."""
    weights = build_plan(spec).weights.values()
    with GgufWriter(path) as writer:
        writer.add_metadata("general.architecture", spec.architecture)
        for key, value in metadata_from_spec(spec).items():
            writer.add_metadata(key, value)
        for weight in weights:
            writer.add_tensor(weight.name, BlockType.F32, weight.shape)
        writer.begin()
        for weight in weights:
            rows = weight.shape[0] if weight.role is not Role.EXPERTS else weight.shape[0] * weight.shape[1]
            writer.write(weight.name, bytes(4 * (rows if len(weight.shape) == 1 else rows * weight.shape[-1])))


def observed(binaries: Path, model: Path, recipe: str) -> dict[str, str]:
    """Tensor → type, as `llama-quantize` reports them without writing a file."""
    command = [str(binaries / "llama-quantize"), "--dry-run", str(model), recipe]
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
        for name, spec in MODELS.items():
            path = Path(folder) / f"{name}.gguf"
            write_zeros(path, spec)
            found[name] = {recipe: by_part(observed(binaries, path, recipe)) for recipe in RECIPES}
            path.unlink()
    return found


if __name__ == "__main__":
    TABLE.write_text(json.dumps(table(Path(sys.argv[1])), indent=1) + "\n")
