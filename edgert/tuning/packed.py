"""Tensors in the bytes they shall have in the file, before there is a file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from edgert_quant.blocks import BlockType
from edgert_quant.imatrix import Importance
from edgert_quant.imatrix.magnitude import quantize_weighed
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
        return quantize_weighed(weights.whole(name), kind, None if given is None else given[0], threads=threads)
    parts = (
        quantize_weighed(weights.expert(name, i), kind, None if given is None else given[i], threads=threads)
        for i in range(shape[0])
    )
    return np.concatenate(list(parts))
