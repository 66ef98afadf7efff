"""Writes GGUF files of real models' shapes with random weights, for measuring speed.

    python -m benchmarks.synthetic olmoe q4_k_m olmoe.gguf [--layers 8 | --bytes 3GiB] [--tokenizer OTHER.gguf]

Every tensor has valid blocks: a pool of quantized Gaussian rows, drawn from over and over. Types without a quantizer
have random codes, with scales that give the weights their usual size. With the tokenizer of another file, and with that
one's vocabulary, servers take the model too.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from edgert_models.errors import EdgertError, UnsupportedError
from edgert_models.graph import Role, Weight
from edgert_models.registry import build_plan, metadata_from_spec
from edgert_models.rope import Rope, RopeLayout
from edgert_models.router import Router
from edgert_models.spec import Latent, ModelSpec
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.blocks.layout import LAYOUTS
from edgert_quant.gguf import GgufFile, GgufWriter
from edgert_quant.gguf.values import ValueType
from edgert_quant.recipes import RECIPES, recipe_named

from edgert.cli.options import byte_count

POOL_ROWS = 512
PIECE_ROWS = 1 << 14

Tokenizer = Sequence[tuple[str, Any, ValueType]]
"""Keys of metadata, with their values and these values' types."""
NO_TOKENIZER: Tokenizer = [("tokenizer.ggml.model", "none", ValueType.STRING)]

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
        router=Router(normalize=False),
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
    # gpt-oss-20b. Rows of 2880 weights have no blocks of 256.
    "gpt-oss": ModelSpec(
        architecture="gpt-oss",
        vocabulary=201088,
        context=131072,
        width=2880,
        layers=24,
        heads=64,
        kv_heads=8,
        head_size=64,
        rope=Rope(
            base=150000.0,
            dims=64,
            layout=RopeLayout.HALVES,
            scaling="yarn",
            factor=32.0,
            original_context=4096,
            truncate=False,
        ),
        norm_eps=1e-5,
        experts=32,
        experts_used=4,
        expert_feed_forward=2880,
        window=128,
        windowed=(True, False) * 12,
        attention_bias=True,
        output_bias=True,
    ),
    # DeepSeek-V2-Lite, whose cache holds a latent.
    "deepseek": ModelSpec(
        architecture="deepseek2",
        vocabulary=102400,
        context=163840,
        width=2048,
        layers=27,
        heads=16,
        kv_heads=1,
        head_size=576,
        value_length=512,
        rope=Rope(
            dims=64,
            layout=RopeLayout.INTERLEAVED,
            scaling="yarn",
            factor=40.0,
            original_context=4096,
            attention_factor=1.0,
            log_multiplier=0.707,
        ),
        norm_eps=1e-6,
        feed_forward=10944,
        experts=64,
        experts_used=6,
        expert_feed_forward=1408,
        shared_feed_forward=2816,
        sparse=(False, *[True] * 26),
        router=Router(normalize=False, group_best=1),
        latent=Latent(rank=512, key_size=192, value_size=128),
    ),
    # Llama-3.1-8B, without what its rope is scaled by.
    "llama": ModelSpec(
        architecture="llama",
        vocabulary=128256,
        context=131072,
        width=4096,
        layers=32,
        heads=32,
        kv_heads=8,
        head_size=128,
        rope=Rope(base=5e5, dims=128, layout=RopeLayout.INTERLEAVED),
        norm_eps=1e-5,
        feed_forward=14336,
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


Choose = Callable[[Iterable[Weight], ModelSpec], Mapping[str, BlockType]]


def choice(name: str) -> tuple[int, Choose]:
    """GGUF's general.file_type, and which weights get which types: an edgert recipe, or `mxfp4`: experts; what else is
    large in Q8_0 (as OpenAI's files have it).
    """
    if name in RECIPES:
        recipe = recipe_named(name)
        return recipe.file_type, recipe.types
    if name != "mxfp4":
        raise UnsupportedError(f"type '{name}' is not one of {', '.join(RECIPES)}, mxfp4")

    def mxfp4(weights: Iterable[Weight], spec: ModelSpec) -> dict[str, BlockType]:
        large = {True: BlockType.MXFP4, False: BlockType.Q8_0}
        return {w.name: BlockType.F32 if w.role.stays_float else large[w.role is Role.EXPERTS] for w in weights}

    return 38, mxfp4


def random_rows(kind: BlockType, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of a block type as uint8 [rows, row bytes], of weights whose standard deviation is columns^-0.5."""
    wanted = columns**-0.5
    try:
        return quantize(rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(wanted), kind)
    except UnsupportedError:
        data = rng.integers(0, 256, (rows, kind.row_bytes(columns)), dtype=np.uint8)
    # Any codes are valid: the scale makes them weights. First 1, to see how far they spread, then what is wanted.
    blocks = data.reshape(-1, kind.block_bytes).view(LAYOUTS[kind])
    power = kind is BlockType.MXFP4  # its scale is a power of two, 127 being 2^0
    scale = blocks["e"] if power else blocks["d"]
    scale[:] = 127 if power else 1
    factor = wanted / dequantize(data, kind).std()
    scale[:] = 127 + np.round(np.log2(factor)) if power else factor
    return data


def size(spec: ModelSpec, choose: Choose) -> int:
    """Bytes of all tensors."""
    weights = build_plan(spec).weights.values()
    types = choose(weights, spec)
    return sum(prod(weight.shape[:-1]) * types[weight.name].row_bytes(weight.shape[-1]) for weight in weights)


def shortened(spec: ModelSpec, layers: int) -> ModelSpec:
    """The model with its first layers only."""
    return replace(spec, layers=layers, sparse=spec.sparse[:layers], windowed=spec.windowed[:layers])


def within(spec: ModelSpec, choose: Choose, limit: int) -> ModelSpec:
    """The model with as many of its layers as make no more than `limit` bytes of tensors."""
    for layers in range(spec.layers, 0, -1):
        if size(shorter := shortened(spec, layers), choose) <= limit:
            return shorter
    raise UnsupportedError(f"one layer takes {size(shortened(spec, 1), choose)} bytes, more than {limit}")


def tokenizer_of(path: Path) -> Tokenizer:
    """The tokenizer of a GGUF file."""
    with GgufFile.open(path) as file:
        keys = [key for key in file.metadata if key.startswith("tokenizer.")]
        return [(key, file.metadata[key], file.metadata.stored_type(key)) for key in keys]


def write(spec: ModelSpec, type_name: str, path: Path, seed: int = 0, tokenizer: Tokenizer = NO_TOKENIZER) -> None:
    """Write the file."""
    rng = np.random.default_rng(seed)
    plan = build_plan(spec)
    file_type, choose = choice(type_name)
    types = choose(plan.weights.values(), spec)
    pools: dict[object, np.ndarray] = {}
    with GgufWriter(path) as writer:
        writer.add_metadata("general.architecture", spec.architecture)
        writer.add_metadata("general.name", f"synthetic {path.stem}")
        writer.add_metadata("general.file_type", file_type)
        writer.add_metadata("general.quantization_version", 2)
        for key, value in metadata_from_spec(spec).items():
            writer.add_metadata(key, value)
        for key, value, kind in tokenizer:
            writer.add_metadata(key, value, kind)
        for weight in plan.weights.values():
            writer.add_tensor(weight.name, types[weight.name], weight.shape)
        writer.begin()
        for weight in plan.weights.values():
            rows, columns = int(np.prod(weight.shape[:-1], dtype=np.int64)), weight.shape[-1]
            if len(weight.shape) == 1:
                writer.write(weight.name, quantize(np.ones((1, columns), np.float32), types[weight.name]))
                continue
            alike = (types[weight.name], columns)
            if alike not in pools:
                pools[alike] = random_rows(types[weight.name], POOL_ROWS, columns, rng)
            for start in range(0, rows, PIECE_ROWS):
                picked = rng.integers(0, POOL_ROWS, min(PIECE_ROWS, rows - start))
                writer.write(weight.name, pools[alike][picked])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type")
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--bytes", help="as many layers as this allows, such as 3GiB")
    parser.add_argument("--tokenizer", type=Path, help="a GGUF file whose tokenizer and vocabulary the model gets")
    arguments = parser.parse_args()
    spec = SHAPES[arguments.shape]
    try:
        tokenizer = NO_TOKENIZER
        if arguments.tokenizer is not None:
            tokenizer = tokenizer_of(arguments.tokenizer)
            tokens = next(value for key, value, _ in tokenizer if key == "tokenizer.ggml.tokens")
            spec = replace(spec, vocabulary=len(tokens))
        _, choose = choice(arguments.type)
        spec = shortened(spec, arguments.layers or spec.layers)
        if (limit := byte_count(arguments.bytes, "--bytes")) is not None:
            spec = within(spec, choose, limit)
        write(spec, arguments.type, arguments.output, tokenizer=tokenizer)
    except EdgertError as error:
        parser.error(str(error))
    print(f"{arguments.output}: {spec.layers} layers, {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
