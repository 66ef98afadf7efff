"""Weights to bytes so that the errors of outputs, not of weights, become small.

Block by block from left to right: the best weights of the block, given the errors before it; a grid for them, by
`quantize`; then in turn rounding with feedback (`kernels.round_block`) and descent of codes, integers and units to
where the block costs least (`kernels.descend`). When all blocks are done, descent goes over them again with the errors
of all others known (coordinate descent on the whole objective, as in QuantEase, arXiv:2309.01885).

Types whose weights are not rounded one by one are quantized block by block with feedback between blocks only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from edgert_models.errors import RequestError
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.compensation.feedback import DAMPING, Block, Feedback, Floats, Numbers
from edgert_quant.compensation.grids import GRIDS, Parts, put_together, take_apart
from edgert_quant.compensation.kernels import descend, round_block
from edgert_quant.jit import Kernel

Bytes = NDArray[np.uint8]

PIECE_ROWS = 32
"""Rows that a thread takes at a time."""

ROUNDS = 2
"""Times that a block is rounded and improved."""

SWEEPS = 2
"""Times that codes, integers and units move in turn before other blocks' errors are looked at again."""

PASSES = 3
"""Times that descent goes over all blocks at the end."""


def compensate(
    x: Numbers,
    type: BlockType,  # noqa: A002
    covariance: Numbers | Feedback,
    *,
    importance: Numbers | None = None,
    damping: float = DAMPING,
    threads: int | None = None,
) -> Bytes:
    """The weights `x`, float [rows, n], in the bytes of a type: uint8 [rows, row bytes], for a small tr(E H Eᵀ), where
    E is `x` less what `dequantize` gives back and H is `covariance`, float [n, n], with `damping` times the mean of its
    diagonal added to the diagonal. A `Feedback` made of a covariance beforehand serves any number of matrices.

    No row costs more than in the bytes that `quantize` makes of it with `importance` ([n] or [rows, n]; default: the
    diagonal of H), which are the result where nothing better is found. `importance` also guides the search for grids.

    For a given numerical library, the bytes do not depend on `threads` (of the compiled code; default: one per core).

    Raises what `quantize` and `Feedback` raise, and `RequestError` if x is no matrix or H is of another width.
    """
    if x.ndim != 2:
        raise RequestError(f"compensate takes a matrix of weights, not the shape {list(x.shape)}", parameter="x")
    feedback = covariance if isinstance(covariance, Feedback) else Feedback(covariance, damping=damping)
    if feedback.n != x.shape[1]:
        raise RequestError(
            f"the covariance is of {feedback.n} inputs, the weights have {x.shape[1]}", parameter="covariance"
        )
    plain = quantize(x, type, importance=feedback.importance if importance is None else importance, threads=threads)
    if type.block_size == 1 or not x.size:
        return plain
    work = _Work(np.ascontiguousarray(x, np.float32), type, feedback, importance, threads)
    found = work.run()
    differences = [work.x - dequantize(data, type) for data in (found, plain)]
    better = feedback.errors(differences[0]) < feedback.errors(differences[1])
    return np.where(better[:, None], found, plain)


def kernels() -> list[Kernel]:
    """The compiled code that `compensate` needs besides that of `quantize`: for `jit.prepare`."""
    return [round_block, descend]


class _Work:
    """One matrix on its way to bytes."""

    def __init__(
        self, x: Floats, kind: BlockType, feedback: Feedback, importance: Numbers | None, threads: int | None
    ) -> None:
        self.x, self.kind, self.feedback, self.threads = x, kind, feedback, threads
        self.importance = feedback.variance if importance is None else importance
        self.workers = min(threads or os.cpu_count() or 1, -(-len(x) // PIECE_ROWS))
        self.errors = np.zeros_like(x)
        self.limits = float(x.min()), float(x.max())

    def run(self) -> Bytes:
        size, kind = self.kind.block_size, self.kind
        starts = range(0, self.x.shape[1], size)
        if kind not in GRIDS:
            return np.concatenate([self._as_a_whole(start) for start in starts], axis=1)
        with ThreadPoolExecutor(self.workers, "compensate") as pool:
            self.pool = pool
            parts = [self._one_by_one(start) for start in starts]
            for _ in range(PASSES):
                for start, part in zip(starts, parts, strict=True):
                    self._improve(start, part)
        return np.concatenate([put_together(part, kind) for part in parts], axis=1)

    def _best_weights(self, start: int, block: Block) -> Floats:
        """What the block's weights should be now, [rows, size]."""
        stop = start + self.kind.block_size
        wanted = self.errors[:, :start] @ self.feedback.factor[start:stop, :start].T
        return np.ascontiguousarray(self.x[:, start:stop] + wanted @ block.carry)

    def _fitted(self, target: Floats, start: int) -> Bytes:
        """The block by `quantize`. The best weights may be far larger than any weight was; grids are not for those."""
        importance = self.importance[..., start : start + self.kind.block_size]
        return quantize(np.clip(target, *self.limits), self.kind, importance=importance, threads=self.threads)

    def _block(self, start: int) -> Block:
        return self.feedback.blocks(self.kind.block_size)[start // self.kind.block_size]

    def _keep_errors(self, start: int, back: Floats) -> None:
        place = slice(start, start + self.kind.block_size)
        self.errors[:, place] = self.x[:, place] - back

    def _as_a_whole(self, start: int) -> Bytes:
        data = self._fitted(self._best_weights(start, self._block(start)), start)
        self._keep_errors(start, dequantize(data, self.kind))
        return data

    def _one_by_one(self, start: int) -> Parts:
        """A block rounded with feedback from column to column; of several rounds the best, row by row."""
        block = self._block(start)
        target = self._best_weights(start, block)
        parts = take_apart(self._fitted(target, start), self.kind)
        kept, least = parts.copy(), np.full(len(target), np.inf, np.float32)
        difference = np.empty_like(target)
        for _ in range(ROUNDS):
            self._round(target, start, difference, parts)
            self._descend(block.curvature, difference @ block.curvature, difference, parts)
            cost = np.einsum("rn,rn->r", difference @ block.curvature, difference)
            better = cost < least
            least = np.where(better, cost, least)
            kept.take(parts, better)
        self._keep_errors(start, kept.weights(self.kind))
        return kept

    def _improve(self, start: int, parts: Parts) -> None:
        """Descent with the errors of all columns known."""
        place = slice(start, start + self.kind.block_size)
        covariance = self.feedback.covariance
        gradients, errors = self.errors @ covariance[:, place], np.ascontiguousarray(self.errors[:, place])
        self._descend(np.ascontiguousarray(covariance[place, place]), gradients, errors, parts)
        self._keep_errors(start, parts.weights(self.kind))

    def _round(self, target: Floats, start: int, difference: Floats, parts: Parts) -> None:
        size, grid = self.kind.block_size, GRIDS[self.kind]
        factor = self.feedback.factor[start:, start:]

        def work(first: int, end: int) -> None:
            round_block(
                end - first,
                size,
                grid.length,
                _at(target, first),
                factor.ctypes.data,
                factor.strides[0] // factor.itemsize,
                _at(difference, first),
                *(_at(array, first) for array in (parts.units, parts.integers, parts.codes)),
                *grid.addresses(),
            )

        self._in_pieces(work)

    def _descend(self, curvature: Floats, gradients: Floats, difference: Floats, parts: Parts) -> None:
        size, grid = self.kind.block_size, GRIDS[self.kind]

        def work(first: int, end: int) -> None:
            scratch = np.empty(4 * size + 1, np.float32)
            descend(
                end - first,
                size,
                grid.length,
                SWEEPS,
                curvature.ctypes.data,
                *(_at(array, first) for array in (gradients, difference)),
                *(_at(array, first) for array in (parts.units, parts.integers, parts.codes)),
                *grid.addresses(),
                *grid.scales,
                grid.floors[1],
                scratch.ctypes.data,
            )

        self._in_pieces(work)

    def _in_pieces(self, work: Callable[[int, int], None]) -> None:
        """Do all rows, some at a time: each by itself, so who does them does not matter."""
        starts = range(0, len(self.x), PIECE_ROWS)
        ends = [min(start + PIECE_ROWS, len(self.x)) for start in starts]
        list(self.pool.map(work, starts, ends))


def _at(array: NDArray[np.generic], row: int) -> int:
    """The address of a row of a contiguous array."""
    return array.ctypes.data + row * array.strides[0]
