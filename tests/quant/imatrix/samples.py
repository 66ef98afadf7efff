"""Importance matrices with random sums, and the older form byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from edgert_models.graph import Role, Weight
from edgert_quant.imatrix import Importance, Sums


def random_sums(experts: int, width: int, seed: int = 0, tokens: int = 1000) -> Sums:
    """Columns of very different sizes; of several experts, each has seen another number of tokens."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, tokens, experts) if experts > 1 else np.array([tokens])
    mean = np.exp(2 * rng.standard_normal((experts, width)))
    return Sums((mean * counts[:, None]).astype(np.float32), counts.astype(np.int64))


def importance_of(weights: Iterable[Weight], tokens: int = 1000, **fields: Any) -> Importance:
    """What llama-imatrix would have: matrices, experts and routers of the layers."""
    sums = {}
    for i, weight in enumerate(weights):
        if weight.role in (Role.MATRIX, Role.EXPERTS, Role.ROUTER) and weight.name.startswith("blk."):
            experts = weight.shape[0] if weight.role is Role.EXPERTS else 1
            sums[weight.name] = random_sums(experts, weight.shape[-1], i, tokens)
    return Importance(sums, **{"datasets": ("texts/calm.txt",), "chunk_count": 3, "chunk_size": 512, **fields})


def old_form(entries: Mapping[str, tuple[int, Iterable[float]]], tail: bytes = b"") -> bytes:
    """Entries of (calls, values) as a file of the older form."""
    data = struct.pack("<i", len(entries))
    for name, (calls, given) in entries.items():
        values = np.array(list(given), "<f4")
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values)) + values.tobytes()
    return data + tail


def old_tail(chunks: int, text: str) -> bytes:
    return struct.pack("<ii", chunks, len(text)) + text.encode()
