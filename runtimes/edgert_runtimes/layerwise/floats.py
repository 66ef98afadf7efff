"""Weights as floats, read from a provider when they are needed, or kept."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from edgert_quant.blocks import dequantize
from numpy.typing import NDArray

from edgert_runtimes.base import StoredWeight, WeightProvider

Floats_ = NDArray[np.floating[Any]]


class Floats:
    """Tensors of a provider as floats of `dtype`, in their own shape.

    With `keep` what was read once stays in memory. `replaced` and `replaced_experts` stand before the provider:
    tensors, and single matrices of [experts, out, in], to be tried instead.
    """

    def __init__(
        self, provider: WeightProvider, *, keep: bool = False, dtype: type[np.floating[Any]] = np.float32
    ) -> None:
        self.provider = provider
        self.dtype = dtype
        self.replaced: dict[str, Floats_] = {}
        self.replaced_experts: dict[tuple[str, int], Floats_] = {}
        self._kept: dict[str, Floats_] | None = {} if keep else None

    @property
    def weights(self) -> Mapping[str, StoredWeight]:
        """Type and shape of every tensor, as the provider has it."""
        return self.provider.weights

    def whole(self, name: str) -> Floats_:
        """A tensor, in its shape."""
        if name in self.replaced:
            return self.replaced[name]
        if self._kept is None:
            return self._read(name)
        if name not in self._kept:
            self._kept[name] = self._read(name)
        return self._kept[name]

    def expert(self, name: str, index: int) -> Floats_:
        """One matrix [out, in] of [experts, out, in], or one vector [n] of [experts, n]."""
        if (name, index) in self.replaced_experts:
            return self.replaced_experts[name, index]
        if name in self.replaced or self._kept is not None:
            return np.asarray(self.whole(name)[index])
        shape = self.provider.weights[name].shape[1:]
        rows = prod(shape[:-1])
        return self._read(name, index * rows, rows).reshape(shape)

    def rows(self, name: str, indices: NDArray[np.integer[Any]]) -> Floats_:
        """Rows [len(indices), in] of a matrix; what is not needed is not read."""
        if name in self.replaced or self._kept is not None:
            return np.asarray(self.whole(name)[indices])
        wanted, places = np.unique(indices, return_inverse=True)
        read = [self._read(name, int(row), 1) for row in wanted]
        return np.asarray(np.concatenate(read)[places])

    def _read(self, name: str, start: int = 0, count: int | None = None) -> Floats_:
        stored = self.provider.weights[name]
        values = dequantize(self.provider.read(name, start, count), stored.type).astype(self.dtype, copy=False)
        return values.reshape(stored.shape) if start == 0 and count is None else values
