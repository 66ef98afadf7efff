"""Tensors in the bytes they shall have in the file, before there is a file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from edgert_quant.blocks import BlockType, quantize
from edgert_quant.imatrix import Importance
from edgert_quant.imatrix.magnitude import with_magnitudes
from edgert_runtimes.base import StoredWeight, WeightProvider
from edgert_runtimes.layerwise import Floats
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


class Packed:
    """Implements `WeightProvider`: tensors that were put in, and for the rest another provider."""

    def __init__(self, base: WeightProvider) -> None:
        self._base = base
        self.rows: dict[str, Bytes] = {}
        self.weights: Mapping[str, StoredWeight] = dict(base.weights)

    def put(self, name: str, kind: BlockType, rows: Bytes) -> None:
        """Take uint8 [rows, row bytes] of a type for a tensor."""
        self.rows[name] = rows
        self.weights = {**self.weights, name: StoredWeight(kind, self.weights[name].shape)}

    def read(self, name: str, start: int = 0, count: int | None = None) -> Bytes:
        """See `WeightProvider`."""
        if name not in self.rows:
            return self._base.read(name, start, count)
        return np.array(self.rows[name][start : None if count is None else start + count])

    def map(self, name: str) -> Bytes | None:
        """See `WeightProvider`."""
        return self.rows[name] if name in self.rows else self._base.map(name)

    def check(self) -> None:
        """See `WeightProvider`."""
        self._base.check()


def pack(weights: Floats, name: str, kind: BlockType, importance: Importance | None, threads: int | None) -> Bytes:
    """A tensor rounded to a type, each weight for itself: uint8 [rows, row bytes]. Experts go one by one."""
    shape = weights.weights[name].shape
    given = None if importance is None else importance.of(name)
    if len(shape) < 3:
        return pack_matrix(weights.whole(name), kind, None if given is None else given[0], threads)
    parts = (
        pack_matrix(weights.expert(name, i), kind, None if given is None else given[i], threads)
        for i in range(shape[0])
    )
    return np.concatenate(list(parts))


def pack_matrix(
    weights: NDArray[np.float32], kind: BlockType, importance: NDArray[np.float32] | None, threads: int | None
) -> Bytes:
    """A matrix [rows, in] rounded to a type, each weight for itself; `importance` is that of its columns."""
    if importance is not None:
        importance = with_magnitudes(importance, weights, kind)
    return quantize(weights, kind, importance=importance, threads=threads)
