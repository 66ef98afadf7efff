"""Adapters that a model may be asked with: read, and put side by side as the tensors of a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from edgert_models.errors import RequestError
from edgert_models.graph import Adapters, Plan
from edgert_quant.adapters import Adapter, read_adapter
from edgert_quant.blocks import BlockType
from edgert_runtimes.weights import MemoryWeights

Source = str | Path | tuple[str | Path, float]
"""A GGUF file or a PEFT folder, and how many times as strong as its makers had it."""

_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class LoadedAdapters:
    """Adapter i is `names[i]`; `plan` says how to wire them, `weights` has their tensors."""

    names: tuple[str, ...]
    plan: Adapters
    weights: MemoryWeights


def load_adapters(sources: Mapping[str, Source], plan: Plan) -> LoadedAdapters:
    """Read adapters for a plan that has none yet. RequestError for a name that cannot be one, else see
    `read_adapter`.
    """
    if not isinstance(sources, Mapping):
        raise RequestError(f"adapters must be files by name, not {sources!r:.40}", parameter="adapters")
    found = []
    for name, source in sources.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            reason = f"an adapter cannot be called {name!r}; letters, digits, dots and dashes can be in a name"
            raise RequestError(reason, parameter="adapters")
        path, scale = source if isinstance(source, tuple) else (source, 1.0)
        found.append(read_adapter(path, plan, scale))
    targets = {name for adapter in found for name in adapter.pairs}
    ranks = {
        name: max(len(adapter.pairs[name].a) for adapter in found if name in adapter.pairs)
        for name in plan.weights
        if name in targets
    }
    tensors = {}
    for name, rank in ranks.items():
        out, width = plan.weights[name].shape
        for suffix, columns, side in ((".lora_a", width, "a"), (".lora_b", out, "b")):
            stacked = _stacked(found, name, side, rank, columns)
            rows = stacked.reshape(-1, columns).view(np.uint8)
            tensors[name + suffix] = (BlockType.F32, stacked.shape, rows)
    return LoadedAdapters(tuple(sources), Adapters(len(found), ranks), MemoryWeights(tensors))


def _stacked(
    adapters: list[Adapter], name: str, side: str, rank: int, columns: int
) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    """[adapters, rank, columns] of one side of a matrix, zeros where an adapter has less."""
    stacked = np.zeros((len(adapters), rank, columns), np.float32)
    for index, adapter in enumerate(adapters):
        if name in adapter.pairs:
            pair = adapter.pairs[name]
            stacked[index, : len(pair.a)] = pair.a if side == "a" else pair.b.T
    return stacked
