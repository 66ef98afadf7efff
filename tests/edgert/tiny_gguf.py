"""A GGUF with a tiny random model and a real byte-level tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edgert_models import build_plan
from edgert_models.graph import Role
from edgert_models.registry import metadata_from_spec
from edgert_quant.blocks import BlockType, quantize
from edgert_quant.gguf import GgufWriter
from edgert_runtimes.conformance.tiny import tiny_spec, type_of_role

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if tools %}[{{ tools[0]['function']['name'] }}]{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r"]
SPECIAL = ["<|bos|>", "<|im_start|>", "<|im_end|>"]


def byte_letters() -> list[str]:
    """The letters that stand for bytes in GPT-2's vocabularies (`bytes_to_unicode` in its encoder.py)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(hidden)) for byte in range(256)]


def vocabulary() -> list[str]:
    return [*byte_letters(), *(merge.replace(" ", "") for merge in MERGES), *SPECIAL]


def tokenizer_entries(template: str | None = TEMPLATE) -> dict[str, Any]:
    tokens = vocabulary()
    entries: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([3 if t in SPECIAL else 1 for t in tokens], dtype=np.int32),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": tokens.index("<|bos|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.add_bos_token": True,
    }
    if template is not None:
        entries["tokenizer.chat_template"] = template
    return entries


def write_tiny(
    path: Path,
    architecture: str = "qwen3moe",
    *,
    tokenizer: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    padding: int = 0,
    seed: int = 0,
    matrices: BlockType = BlockType.F32,
    more: Mapping[str, np.ndarray] | None = None,
    **changes: Any,
) -> Path:
    """A tiny model, its matrices in one type; `padding` rows of the embedding have no token, `more` are further tensors
    in float32, `changes` are ModelSpec fields.
    """
    entries = tokenizer_entries() if tokenizer is None else dict(tokenizer)
    spec = tiny_spec(architecture, **{"vocabulary": len(vocabulary()) + padding, **changes})
    plan = build_plan(spec)
    type_of = type_of_role(matrices)
    generator = np.random.default_rng(seed)
    with GgufWriter(path) as writer:
        writer.add_metadata("general.architecture", architecture)
        for key, value in {**metadata_from_spec(spec), **entries, **(metadata or {})}.items():
            writer.add_metadata(key, value)
        for weight in plan.weights.values():
            writer.add_tensor(weight.name, type_of(weight), weight.shape)
        for name, values in (more or {}).items():
            writer.add_tensor(name, BlockType.F32, values.shape)
        writer.begin()
        for weight in plan.weights.values():
            values = generator.standard_normal(weight.shape, dtype=np.float32)
            if weight.role is Role.VECTOR:
                values = 0.5 + generator.random(weight.shape, dtype=np.float32)
            elif weight.role is not Role.EMBEDDING:
                values *= np.float32(2 * weight.shape[-1] ** -0.5)
            writer.write(weight.name, quantize(values.reshape(-1, weight.shape[-1]), type_of(weight)))
        for name, values in (more or {}).items():
            writer.write(name, values.reshape(-1, values.shape[-1]).astype(np.float32).view(np.uint8))
    return path
