"""Weights to bytes so that the errors of outputs, not of weights, become small.

Panel by panel from left to right: the best weights of the panel, given the errors before it; grids for them, by
`quantize`; then in turn rounding with feedback (`kernels.round_panel`) and descent of codes, integers and units to
where the panel costs least (`kernels.descend`). When all panels are done, they are gone over again with the errors of
all others known: new grids, then descent (coordinate descent on the whole objective, as in QuantEase,
arXiv:2309.01885).

New grids come from a simpler objective with the slope of the true one: with e H eᵀ replaced by the sum over j of
c H[j, j] (p[j] - y[j])², where y is what will be read back and p what is now, plus (e H)[j] / (c H[j, j]). `quantize`
makes that small for any type, and rows whose true objective falls by it are taken. So types whose weights are not
rounded one by one are compensated too, by this alone, in steps of several lengths 1 / c.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from edgert_models.errors import RequestError
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.compensation.feedback import DAMPING, PANEL, Feedback, Floats, Numbers
from edgert_quant.compensation.grids import GRIDS, Parts, put_together, take_apart
from edgert_quant.compensation.kernels import descend, round_panel
from edgert_quant.jit import Kernel

Bytes = NDArray[np.uint8]

PIECE_ROWS = 32
"""Rows that a thread takes at a time."""

ROUNDS = 2
"""Times that a panel is rounded and improved."""

SWEEPS = 2
"""Times that codes, integers and units move in turn before other panels' errors are looked at again."""

PASSES = 3
"""Times that all panels are gone over again at the end."""

STEPS, MORE_STEPS = (1.0,), (1.0, 2.0, 4.0, 8.0)
"""Divisors c of the steps to new grids in each of these: with descent after them, and without."""


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
    return [round_panel, descend]


class _Work:
    """One matrix on its way to bytes."""

    def __init__(
        self, x: Floats, kind: BlockType, feedback: Feedback, importance: Numbers | None, threads: int | None
    ) -> None:
        self.x, self.kind, self.feedback, self.threads = x, kind, feedback, threads
        self.importance = importance
        self.workers = min(threads or os.cpu_count() or 1, -(-len(x) // PIECE_ROWS))
        self.errors = np.zeros_like(x)
        self.limits = float(x.min()), float(x.max())

    def run(self) -> Bytes:
        panels = range(len(self.feedback.panels))
        with ThreadPoolExecutor(self.workers, "compensate") as pool:
            self.pool = pool
            self.data = [self._rounded(panel) for panel in panels]
            for _ in range(PASSES):
                for panel in panels:
                    self._improve(panel)
        return np.concatenate(self.data, axis=1)

    def _place(self, panel: int) -> slice:
        """The panel's columns."""
        return slice(PANEL * panel, min(PANEL * (panel + 1), self.x.shape[1]))

    def _best_weights(self, panel: int) -> Floats:
        """What the panel's weights should be now, [rows, size]."""
        place = self._place(panel)
        wanted = self.errors[:, : place.start] @ self.feedback.factor[place, : place.start].T
        return np.ascontiguousarray(self.x[:, place] + wanted @ self.feedback.panels[panel].carry)

    def _fitted(self, target: Floats, panel: int, importance: Floats) -> Bytes:
        """The panel by `quantize`. The best weights may be far larger than any weight was; grids are not for those."""
        if self.importance is not None:
            importance = self.importance[..., self._place(panel)]
        return quantize(np.clip(target, *self.limits), self.kind, importance=importance, threads=self.threads)

    def _rounded(self, panel: int) -> Bytes:
        """A panel rounded with feedback from column to column; of several rounds the best, row by row."""
        target, curvature = self._best_weights(panel), self.feedback.panels[panel].curvature
        data = self._fitted(target, panel, self.feedback.variance[self._place(panel)])
        if self.kind in GRIDS:
            parts = self._apart(data)
            kept, least = parts.copy(), np.full(len(target), np.inf, np.float32)
            difference = np.empty_like(target)
            for _ in range(ROUNDS):
                self._round(target, panel, difference, parts)
                gradients = difference @ curvature
                self._descend(curvature, gradients, difference, parts)
                cost = np.einsum("rn,rn->r", gradients, difference)
                better = cost < least
                least = np.where(better, cost, least)
                kept.take(parts, np.repeat(better, len(parts.codes) // len(better)))
            data = self._together(kept)
        self._keep_errors(panel, data)
        return data

    def _improve(self, panel: int) -> None:
        """New grids, and descent, with the errors of all columns known."""
        place, data = self._place(panel), self.data[panel]
        gradients = self.errors @ self.feedback.covariance[:, place]
        curvature = np.ascontiguousarray(self.feedback.covariance[place, place])
        bend = curvature.diagonal().copy()
        back = self.x[:, place] - self.errors[:, place]
        for divisor in STEPS if self.kind in GRIDS else MORE_STEPS:
            tried = self._fitted(back + gradients / (divisor * bend), panel, bend)
            change = dequantize(tried, self.kind) - back
            pull = change @ curvature
            better = np.einsum("rn,rn->r", change, 2 * gradients - pull)[:, None] > 0
            data = np.where(better, tried, data)
            back += np.where(better, change, np.float32(0))
            gradients -= np.where(better, pull, np.float32(0))
        if self.kind in GRIDS:
            parts = self._apart(data)
            self._descend(curvature, gradients, np.ascontiguousarray(self.x[:, place] - back), parts)
            data = self._together(parts)
        self.data[panel] = data
        self._keep_errors(panel, data)

    def _keep_errors(self, panel: int, data: Bytes) -> None:
        place = self._place(panel)
        self.errors[:, place] = self.x[:, place] - dequantize(data, self.kind)

    def _apart(self, data: Bytes) -> Parts:
        return take_apart(data.reshape(-1, self.kind.block_bytes), self.kind)

    def _together(self, parts: Parts) -> Bytes:
        return put_together(parts, self.kind).reshape(len(self.x), -1)

    def _round(self, target: Floats, panel: int, difference: Floats, parts: Parts) -> None:
        start = self._place(panel).start
        factor = self.feedback.factor[start:, start:]

        def work(first: int, end: int) -> None:
            round_panel(
                end - first,
                target.shape[1],
                self.kind.block_size,
                GRIDS[self.kind].length,
                _at(target, first),
                factor.ctypes.data,
                factor.strides[0] // factor.itemsize,
                _at(difference, first),
                *self._addresses(parts, first),
            )

        self._in_pieces(work)

    def _descend(self, curvature: Floats, gradients: Floats, difference: Floats, parts: Parts) -> None:
        size, span, grid = len(curvature), self.kind.block_size, GRIDS[self.kind]

        def work(first: int, end: int) -> None:
            scratch = np.empty(2 * (span + size) + 1, np.float32)
            descend(
                end - first,
                size,
                span,
                grid.length,
                SWEEPS,
                curvature.ctypes.data,
                *(_at(array, first) for array in (gradients, difference)),
                *self._addresses(parts, first),
                *grid.scales,
                grid.floors[1],
                scratch.ctypes.data,
            )

        self._in_pieces(work)

    def _addresses(self, parts: Parts, row: int) -> tuple[int, ...]:
        """Where the parts from a row on are, and the grid's tables."""
        block = row * (len(parts.codes) // len(self.x))
        arrays = (parts.units, parts.integers, parts.codes)
        return *(_at(array, block) for array in arrays), *GRIDS[self.kind].addresses()

    def _in_pieces(self, work: Callable[[int, int], None]) -> None:
        """Do all rows, some at a time: each by itself, so who does them does not matter."""
        starts = range(0, len(self.x), PIECE_ROWS)
        ends = [min(start + PIECE_ROWS, len(self.x)) for start in starts]
        list(self.pool.map(work, starts, ends))


def _at(array: NDArray[np.generic], row: int) -> int:
    """The address of a row of a contiguous array."""
    return array.ctypes.data + row * array.strides[0]
