"""A model to walk through layer by layer: a GGUF file, or a checkpoint as it would be converted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import TracebackType

import numpy as np
from edgert_models.errors import RequestError
from edgert_models.graph import Plan
from edgert_models.registry import build_plan
from edgert_quant.blocks import BlockType
from edgert_quant.convert.run import open_source
from edgert_quant.convert.source import Source
from edgert_quant.files import expanded
from edgert_quant.hub import HUB_ID, snapshot
from edgert_runtimes.base import StoredWeight, WeightProvider
from edgert_runtimes.layerwise import Floats, Layerwise
from numpy.typing import NDArray

from edgert.resolve import resolve_model
from edgert.text import Tokenizer

KEPT_BYTES = 1 << 30
"""Models that take no more than this as floats stay in memory; of others, each weight is read when it is needed."""


class SourceWeights:
    """The weights of a conversion's source as F32, read when they are asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.weights: Mapping[str, StoredWeight] = {
            name: StoredWeight(BlockType.F32, weight.shape) for name, weight in source.weights.items()
        }

    def read(self, name: str, start: int = 0, count: int | None = None) -> NDArray[np.uint8]:
        """See WeightProvider. Sources read whole groups of rows, and of one expert at a time."""
        shape = self._source.weights[name].shape
        end = prod(shape[:-1]) if count is None else start + count
        group = self._source.row_group(name)
        block = shape[1] if len(shape) == 3 else prod(shape[:-1])
        parts = []
        for first in range(start - start % block, end, block):
            low, high = max(start, first), min(end, first + block)
            below, above = low - low % group, high + -high % group
            rows = self._source.read(name, below, above - below, BlockType.F32)
            parts.append(rows[low - below : high - below].view(np.uint8))
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def map(self, name: str) -> NDArray[np.uint8] | None:
        """See WeightProvider: nothing is mapped."""
        return None

    def check(self) -> None:
        """See WeightProvider: nothing is mapped."""


class Model:
    """A GGUF file, a checkpoint folder, a hub id in the local cache, or "demo". Use as a context manager.

    Raises what `edgert.convert` raises for such a source.
    """

    def __init__(self, reference: str | Path | None) -> None:
        self.path = _located(reference)
        self._source = open_source(self.path, parity=False)
        try:
            self.plan = build_plan(self._source.spec)
            self.weights = SourceWeights(self._source)
            entries = {key: entry.value for key, entry in self._source.metadata().items()}
            self.name = str(entries.get("general.name") or self.path.stem)
            if entries.get("tokenizer.ggml.model", "none") == "none":
                raise RequestError(f"{self.path} has no tokenizer, so that it cannot read a text", parameter="model")
            self.tokenizer = Tokenizer.from_gguf(entries)
        except BaseException:
            self.close()
            raise

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files."""
        return tuple(self._source.paths)

    def walk(self) -> Layerwise:
        """A way through its plan."""
        return walk_through(self.plan, self.weights)

    def fingerprint(self) -> str:
        """See `fingerprint`."""
        return fingerprint(self.plan, self.weights)

    def close(self) -> None:
        """Close its files."""
        self._source.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def walk_through(plan: Plan, weights: WeightProvider) -> Layerwise:
    """A way through a plan; the floats of a small model are kept."""
    floats = sum(4 * prod(weight.shape) for weight in plan.weights.values())
    return Layerwise(plan, Floats(weights, keep=floats <= KEPT_BYTES))


def fingerprint(plan: Plan, weights: WeightProvider) -> str:
    """SHA-256 of a model's numbers, shapes, and the first and last row of every tensor: tells models apart quickly."""
    digest = hashlib.sha256(repr(plan.spec).encode())
    for name, weight in plan.weights.items():
        digest.update(f"{name} {weight.shape}".encode())
        for row in (0, prod(weight.shape[:-1]) - 1):
            digest.update(weights.read(name, row, 1).tobytes())
    return digest.hexdigest()


def _located(reference: str | Path | None) -> Path:
    """The file or folder; a hub id is that of a checkpoint where the cache has one, else of a GGUF file."""
    if reference is None or reference == "demo":
        return resolve_model(None)
    path = expanded(reference)
    if path.is_dir():
        return path
    if not path.exists() and isinstance(reference, str) and HUB_ID.fullmatch(reference):
        folder = snapshot(reference)
        if folder is not None and (folder / "config.json").is_file():
            return folder
    return resolve_model(reference)
