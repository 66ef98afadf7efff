"""Matrices as MLX multiplies by them. Of experts there are several, [experts, out, in], and ids say which ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import numpy as np
from edgert_quant.blocks import BlockType

from edgert_runtimes.base import Float32, Int32
from edgert_runtimes.mlx.forms import GROUP
from edgert_runtimes.mlx.metal import raw_gather_matmul, raw_matmul, raw_rows


class Matrix(Protocol):
    """A weight [out, in] or [experts, out, in] on the device."""

    def multiply(self, x: mx.array) -> mx.array:
        """x [rows, in] → x Wᵀ [rows, out]."""

    def gather(self, x: mx.array, ids: mx.array, *, ascending: bool) -> mx.array:
        """Each row of x times the matrices of its experts: x [rows, 1, 1, in] or [rows, used, 1, in], ids [rows, used]
        → [rows, used, 1, out]. `ascending`: the ids are sorted.
        """

    def rows(self, indices: mx.array) -> mx.array:
        """Rows [count, in] in float32."""


class Dense:
    """Floats."""

    def __init__(self, weight: mx.array) -> None:
        self._weight = weight
        self._transposed = weight.swapaxes(-1, -2)  # once, and not in every step
        mx.eval(self._transposed)

    def multiply(self, x: mx.array) -> mx.array:
        """See Matrix."""
        return x.astype(self._weight.dtype) @ self._transposed

    def gather(self, x: mx.array, ids: mx.array, *, ascending: bool) -> mx.array:
        """See Matrix."""
        return mx.gather_mm(
            x.astype(self._weight.dtype),
            self._transposed,
            lhs_indices=None if ascending else _places(x, ids),
            rhs_indices=ids,
            sorted_indices=ascending,
        )

    def rows(self, indices: mx.array) -> mx.array:
        """See Matrix."""
        return self._weight[indices].astype(mx.float32)


@dataclass(frozen=True)
class Packed:
    """Codes with scales and biases: see `forms`. `dtype` is that of products."""

    codes: mx.array
    scales: mx.array
    biases: mx.array | None
    bits: int
    mode: str
    dtype: mx.Dtype

    def multiply(self, x: mx.array) -> mx.array:
        """See Matrix."""
        return mx.quantized_matmul(
            x.astype(self.dtype),
            self.codes,
            self.scales,
            self.biases,
            group_size=GROUP,
            bits=self.bits,
            mode=self.mode,
        )

    def gather(self, x: mx.array, ids: mx.array, *, ascending: bool) -> mx.array:
        """See Matrix."""
        return mx.gather_qmm(
            x.astype(self.dtype),
            self.codes,
            self.scales,
            self.biases,
            lhs_indices=None if ascending else _places(x, ids),
            rhs_indices=ids,
            group_size=GROUP,
            bits=self.bits,
            mode=self.mode,
            sorted_indices=ascending,
        )

    def rows(self, indices: mx.array) -> mx.array:
        """See Matrix."""
        biases = None if self.biases is None else self.biases[indices]
        rows = mx.dequantize(
            self.codes[indices], self.scales[indices], biases, group_size=GROUP, bits=self.bits, mode=self.mode
        )
        return rows.astype(mx.float32)


@dataclass(frozen=True)
class Raw:
    """Blocks as they are in the file, which Metal kernels of ours multiply by. `dtype` is that of products."""

    blocks: mx.array
    kind: BlockType
    dtype: mx.Dtype

    def multiply(self, x: mx.array) -> mx.array:
        """See Matrix."""
        return raw_matmul(x.astype(self.dtype), self.blocks, self.kind)

    def gather(self, x: mx.array, ids: mx.array, *, ascending: bool) -> mx.array:
        """See Matrix."""
        x = x.squeeze((1, 2)) if x.shape[1] == 1 else x.squeeze(2)
        return raw_gather_matmul(x.astype(self.dtype), self.blocks, ids, self.kind)[:, :, None]

    def rows(self, indices: mx.array) -> mx.array:
        """See Matrix."""
        return raw_rows(self.blocks, indices, self.kind, mx.float32)


@dataclass(frozen=True)
class HostRows:
    """A matrix of which single rows are looked up, in the provider's own type, by the CPU."""

    look_up: Callable[[Int32], Float32]

    def rows(self, indices: mx.array) -> mx.array:
        """See Matrix. It waits for the indices."""
        return mx.array(self.look_up(np.asarray(indices)))


def _places(x: mx.array, ids: mx.array) -> mx.array:
    """Where in x [rows, 1 or used, 1, in] those of ids [rows, used] find their row. MLX would work it out as well, in
    every step: this is a constant of a compiled function. (With it, MLX takes no notice that ids are sorted.)
    """
    places = np.arange(x.shape[0] * x.shape[1], dtype=np.uint32).reshape(x.shape[:2])
    return mx.array(np.broadcast_to(places, ids.shape))
