"""Adapters written as llama.cpp's converter does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edgert_quant.adapters import Pair
from edgert_quant.blocks import BlockType
from edgert_quant.gguf import GgufWriter


def write_gguf(path: Path, pairs: Mapping[str, Pair], *, alpha: float = 0.0, **changes: Any) -> Path:
    """Pairs for an architecture (llama, unless it is given); alpha / rank is still to be multiplied."""
    entries = {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora", **changes}
    with GgufWriter(path) as writer:
        for key, value in {**entries, "adapter.lora.alpha": np.float32(alpha)}.items():
            writer.add_metadata(key, value)
        tensors = {}
        for name, pair in pairs.items():
            scale = np.float32(alpha / len(pair.a) if alpha else 1.0)
            tensors |= {f"{name}.lora_a": pair.a, f"{name}.lora_b": pair.b / scale}
        for name, values in tensors.items():
            writer.add_tensor(name, BlockType.F32, values.shape)
        writer.begin()
        for name, values in tensors.items():
            writer.write(name, np.ascontiguousarray(values, np.float32).view(np.uint8))
    return path
