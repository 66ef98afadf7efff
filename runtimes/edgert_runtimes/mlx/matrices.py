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
        """Each row of x times the matrices of its experts: x [rows, in] or [rows, used, in], ids [rows, used] →
        [rows, used, out]. `ascending`: the ids are sorted.
        """

    def rows(self, indices: mx.array) -> mx.array:
        """Rows [count, in] in float32."""


@dataclass(frozen=True)
class Dense:
    """Floats."""

    weight: mx.array

    def multiply(self, x: mx.array) -> mx.array:
        """See Matrix."""
        return x.astype(self.weight.dtype) @ self.weight.swapaxes(-1, -2)

    def gather(self, x: mx.array, ids: mx.array, *, ascending: bool) -> mx.array:
        """See Matrix."""
        x = _single_rows(x).astype(self.weight.dtype)
        y = mx.gather_mm(x, self.weight.swapaxes(-1, -2), rhs_indices=ids, sorted_indices=ascending)
        return y.squeeze(-2)

    def rows(self, indices: mx.array) -> mx.array:
        """See Matrix."""
        return self.weight[indices].astype(mx.float32)


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
        y = mx.gather_qmm(
            _single_rows(x).astype(self.dtype),
            self.codes,
            self.scales,
            self.biases,
            rhs_indices=ids,
            group_size=GROUP,
            bits=self.bits,
            mode=self.mode,
            sorted_indices=ascending,
        )
        return y.squeeze(-2)

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
        return raw_gather_matmul(x.astype(self.dtype), self.blocks, ids, self.kind)

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


def _single_rows(x: mx.array) -> mx.array:
    """[rows, in] or [rows, used, in] → matrices of one row, whose leading dimensions broadcast with [rows, used]."""
    return x[:, None, None] if x.ndim == 2 else x[:, :, None]
