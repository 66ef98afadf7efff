"""Writes GGUF files of real models' shapes with random weights, for measuring speed.

    python -m benchmarks.synthetic olmoe q4_k_m olmoe.gguf

Every tensor has valid blocks: a pool of quantized Gaussian rows, drawn from over and over.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from edgert_models.metadata import metadata_from_spec
from edgert_models.registry import build_plan
from edgert_models.rope import Rope, RopeLayout
from edgert_models.spec import ModelSpec
from edgert_quant.blocks import quantize
from edgert_quant.gguf import GgufWriter
from edgert_quant.recipes import Recipe, recipe_named

POOL_ROWS = 512
PIECE_ROWS = 1 << 14

SHAPES = {
    # OLMoE-1B-7B: 6.9 G weights, 1.3 G active.
    "olmoe": ModelSpec(
        architecture="olmoe",
        vocabulary=50304,
        context=4096,
        width=2048,
        layers=16,
        heads=16,
        kv_heads=16,
        head_size=128,
        rope=Rope(dims=128, layout=RopeLayout.HALVES),
        norm_eps=1e-5,
        experts=64,
        experts_used=8,
        expert_feed_forward=1024,
        normalize_experts=False,
        qk_norm="all",
    ),
    # Qwen3-30B-A3B, whose 48 layers are too many for a small machine: see --layers.
    "qwen3": ModelSpec(
        architecture="qwen3moe",
        vocabulary=151936,
        context=32768,
        width=2048,
        layers=48,
        heads=32,
        kv_heads=4,
        head_size=128,
        rope=Rope(base=1e6, dims=128, layout=RopeLayout.HALVES),
        norm_eps=1e-6,
        experts=128,
        experts_used=8,
        expert_feed_forward=768,
        qk_norm="head",
    ),
    # Yi-6B.
    "yi": ModelSpec(
        architecture="llama",
        vocabulary=64000,
        context=4096,
        width=4096,
        layers=32,
        heads=32,
        kv_heads=4,
        head_size=128,
        rope=Rope(base=5e6, dims=128, layout=RopeLayout.INTERLEAVED),
        norm_eps=1e-5,
        feed_forward=11008,
    ),
}


def write(spec: ModelSpec, recipe: Recipe, path: Path, seed: int = 0) -> None:
    """Write the file."""
    rng = np.random.default_rng(seed)
    plan = build_plan(spec)
    types = {weight.name: recipe.choose(weight, spec) for weight in plan.weights.values()}
    pools: dict[object, np.ndarray] = {}
    with GgufWriter(path) as writer:
        writer.add_metadata("general.architecture", spec.architecture)
        writer.add_metadata("general.name", f"synthetic {path.stem}")
        writer.add_metadata("general.file_type", recipe.file_type)
        writer.add_metadata("general.quantization_version", 2)
        for key, value in metadata_from_spec(spec).items():
            writer.add_metadata(key, value)
        writer.add_metadata("tokenizer.ggml.model", "none")
        for weight in plan.weights.values():
            writer.add_tensor(weight.name, types[weight.name], weight.shape)
        writer.begin()
        for weight in plan.weights.values():
            rows = int(np.prod(weight.shape[:-1], dtype=np.int64))
            key = (types[weight.name], weight.shape[-1], len(weight.shape) == 1)
            if key not in pools:
                x = rng.standard_normal((1 if key[2] else POOL_ROWS, weight.shape[-1]), dtype=np.float32)
                x = np.ones_like(x) if key[2] else x * np.float32(weight.shape[-1] ** -0.5)
                pools[key] = quantize(x, types[weight.name])
            pool = pools[key]
            for start in range(0, rows, PIECE_ROWS):
                picked = rng.integers(0, len(pool), min(PIECE_ROWS, rows - start))
                writer.write(weight.name, pool[picked])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type")
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=int)
    arguments = parser.parse_args()
    spec = SHAPES[arguments.shape]
    write(replace(spec, layers=arguments.layers or spec.layers), recipe_named(arguments.type), arguments.output)


if __name__ == "__main__":
    main()
