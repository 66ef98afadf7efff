"""Weights W [rows, n] to blocks that read back as Q, so that tr(E H Eᵀ) is small, where E = W - Q.

H [n, n] is the mean outer product of what the weights are multiplied with: the objective is the mean squared error of
the product. With H = U D Uᵀ, U unit upper triangular, it is the sum over j of D_j (e_j + Σ_{i<j} e_i U_ij)²: going from
left to right, weight j should be rounded from w_j + Σ_{i<j} e_i U_ij. That is GPTQ without an inverse.

Block by block: a grid is fitted to what the weights should be by `quantize`, with D as importance; weights are rounded
one after another; then codes, integers and scales move one at a time where that lowers the objective further, all
weights after the block taken to be free.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from edgert_models.errors import ConversionError, RequestError
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.compensation.grids import GRIDS, Grid, Parts, put_together, take_apart

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Numbers = NDArray[np.floating[Any]]

DAMPING = 0.01
"""Of the mean of H's diagonal, added to it: inputs of other texts are not quite those of the calibration text."""
SWEEPS = 4
ROWS = 64
"""Of a matrix that a thread takes at a time."""


@dataclass(frozen=True)
class Feedback:
    """An H made ready, for all matrices with the same inputs. `root` float32 [n, n] is U √D, upper triangular."""

    root: Floats

    @classmethod
    def of(cls, covariance: Numbers, damping: float = DAMPING) -> Feedback:
        """From H [n, n]; ConversionError where it is not finite. Inputs that are always 0 count little."""
        h = np.array(covariance, np.float64)
        if not np.isfinite(h).all():
            row, column = np.argwhere(~np.isfinite(h))[0]
            raise ConversionError(f"the inputs' covariance at [{row}, {column}] is {h[row, column]}")
        mean = float(np.trace(h)) / len(h)
        h[np.diag_indices_from(h)] += damping * mean if mean > 0 else 1.0
        lower = np.linalg.cholesky(h[::-1, ::-1])
        return cls(np.ascontiguousarray(lower[::-1, ::-1], np.float32))

    @property
    def importance(self) -> Floats:
        """How much an error counts that no later weight makes up for: D, float32 [n]."""
        return np.asarray(np.diag(self.root) ** 2, np.float32)


def shrunk(own: Numbers, pool: Numbers, amount: float) -> NDArray[np.float64]:
    """(1 - amount) · own + amount · pool, both of them mean outer products."""
    return np.asarray((1 - amount) * own.astype(np.float64) + amount * pool)


def loss(error: Numbers, covariance: Numbers) -> float:
    """tr(E H Eᵀ) of an error [rows, n]."""
    e = np.asarray(error, np.float32)
    return float(np.einsum("rn,rn->", e @ np.asarray(covariance, np.float32), e, dtype=np.float64))


def compensate(
    x: Numbers,
    type: BlockType,  # noqa: A002
    feedback: Feedback,
    *,
    sweeps: int = SWEEPS,
    threads: int | None = None,
) -> Bytes:
    """The weights `x` [rows, n] in the bytes of a type, uint8 [rows, row bytes].

    Types whose weights are not rounded one by one (the grids of IQ1 to IQ3) pass errors on only from block to block.
    `sweeps` are those of moving codes, integers and scales at the end: 0 is much faster and somewhat worse. The bytes
    do not depend on `threads`. Raises what `quantize` raises, and RequestError for an H of another size.
    """
    rows, n = x.shape
    if feedback.root.shape != (n, n):
        raise RequestError(f"rows of {n} weights want a covariance [{n}, {n}], not {list(feedback.root.shape)}")
    weights = np.ascontiguousarray(x, np.float32)
    work = _Rounding(type, feedback, sweeps)
    work.prepare()
    out = np.empty((rows, type.row_bytes(n)), np.uint8)
    parts = list(_pieces(rows))

    def one(part: slice) -> None:
        out[part] = work.round(weights[part])

    with ThreadPoolExecutor(min(threads or os.cpu_count() or 1, max(len(parts), 1)), "compensate") as pool:
        list(pool.map(one, parts))
    return out


def _pieces(rows: int) -> Iterator[slice]:
    return (slice(first, min(first + ROWS, rows)) for first in range(0, rows, ROWS))


class _Rounding:
    """One type with one H."""

    def __init__(self, kind: BlockType, feedback: Feedback, sweeps: int) -> None:
        self._kind, self._root, self._sweeps = kind, feedback.root, sweeps
        self._importance = feedback.importance
        self._grid = GRIDS.get(kind)
        diagonal = np.diag(self._root)
        self._unit = np.ascontiguousarray((self._root / diagonal).T)  # row j: U_ij for all i
        np.fill_diagonal(self._unit, 0)

    def prepare(self) -> None:
        """Compile, where there is something to compile, before threads ask for it."""
        if self._grid is not None:
            from edgert_quant.compensation.kernels import descend, round_block

            round_block.load()
            descend.load()

    def round(self, weights: Floats) -> Bytes:
        """Rows, block after block."""
        size, n = self._kind.block_size, weights.shape[1]
        errors = np.zeros_like(weights)
        done = []
        for start in range(0, n, size):
            block = slice(start, start + size)
            wanted = weights[:, block] + errors[:, :start] @ self._unit[block, :start].T
            packed = quantize(wanted, self._kind, importance=self._importance[block], threads=1)
            if self._grid is not None:
                packed = self._one_by_one(self._grid, weights, wanted, packed, errors, block)
            else:
                errors[:, block] = weights[:, block] - dequantize(packed, self._kind)
            done.append(packed)
        return np.concatenate(done, axis=1)

    def _one_by_one(
        self, grid: Grid, weights: Floats, wanted: Floats, packed: Bytes, errors: Floats, block: slice
    ) -> Bytes:
        from edgert_quant.compensation.kernels import descend, round_block

        rows, size, n = len(weights), block.stop - block.start, weights.shape[1]
        parts = take_apart(packed, self._kind)
        own = np.ascontiguousarray(weights[:, block])
        wanted = np.ascontiguousarray(wanted, np.float32)
        error = np.zeros_like(own)
        values = np.array(grid.values, np.float32)
        middles = np.asarray((values[1:] + values[:-1]) / 2)
        place = self._unit.ctypes.data + 4 * (block.start * n + block.start)
        numbers = (values.ctypes.data, len(values), 0 if grid.even else middles.ctypes.data)
        parts = Parts(
            np.ascontiguousarray(parts.units), np.ascontiguousarray(parts.integers), np.ascontiguousarray(parts.codes)
        )
        addresses = [array.ctypes.data for array in (parts.units, parts.integers, parts.codes)]
        round_block(
            rows,
            size,
            grid.length,
            own.ctypes.data,
            wanted.ctypes.data,
            place,
            n,
            error.ctypes.data,
            *addresses,
            *numbers,
        )
        errors[:, block] = error
        if not self._sweeps:
            return put_together(parts, self._kind)
        root = self._root[block, block]
        curvature = np.ascontiguousarray(root @ root.T)
        before = errors[:, : block.start] @ self._root[: block.start, block]
        gradients = np.ascontiguousarray((error @ root + before) @ root.T, np.float32)
        scratch = np.empty(4 * size + 1, np.float32)
        descend(
            rows,
            size,
            grid.length,
            self._sweeps,
            curvature.ctypes.data,
            gradients.ctypes.data,
            error.ctypes.data,
            *addresses,
            *numbers,
            grid.scales[0],
            grid.scales[1],
            grid.floors[1],
            scratch.ctypes.data,
        )
        errors[:, block] = error
        return put_together(parts, self._kind)
