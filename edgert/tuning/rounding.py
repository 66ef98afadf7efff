"""Rounding layer by layer: what enters a matrix has gone through the rounded layers before it, and the errors of its
own weights are made up for by those not yet rounded, as far as the inputs of the calibration text are correlated.

An expert sees few tokens, and a covariance of few tokens misleads. So it is drawn toward that of all the layer's tokens
(gate and up, whose inputs are the layer's) or toward its own variances (down), by the amount that does best on the
tokens held out. Plain rounding is among the candidates and wins ties: on them nothing gets worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from edgert_models import ops
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.compensation import Candidate, Feedback, candidates, choose_shrink
from edgert_quant.imatrix import POOL_ROWS, Importance
from edgert_quant.imatrix.magnitude import quantize_weighed
from edgert_runtimes.base import Progress
from edgert_runtimes.layerwise import Layerwise, Observer
from numpy.typing import NDArray

from edgert.tuning.kept import Kept
from edgert.tuning.material import Material
from edgert.tuning.packed import Bytes, Packed

Floats = NDArray[np.floating[Any]]

WELL_FED = 4
"""Tokens for each input of an expert, from which on its own covariance is believed more."""
OWN_TOO = ((0.1, 0.05), (0.5, 0.3))
ALONE_TOO = ((0.0, 0.1), (0.0, 0.5))
"""Shares of the pool and of the diagonal that are tried then."""


class Rounder(Observer):
    """Rounds matrices when they are about to be multiplied, while a model runs over the whole calibration text."""

    def __init__(
        self,
        material: Material,
        types: Mapping[str, BlockType],
        importance: Importance,
        *,
        kept: Kept | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.packed = Packed(material.model.provider)
        self._walk: Layerwise = material.model.walk()
        provider = material.model.provider
        for name, kind in types.items():  # what has its type already stays as it is
            if provider.weights[name].type is kind:
                self.packed.put(name, kind, provider.read(name))
        self._text, self._held = material.everything()
        self._types, self._importance, self._threads = types, importance, threads
        self._progress, self._total, self._done = progress, len(types), 0
        self._kept, self._restored = kept, set[str]()
        self._experts: dict[str, dict[int, Bytes]] = {}
        self._inputs: _Inputs | None = None
        self._pool: _Inputs | None = None
        self._moe: ops.Moe | None = None

    @classmethod
    def run(cls, material: Material, types: Mapping[str, BlockType], importance: Importance, **options: Any) -> Packed:
        """All matrices of `types`, rounded; `options` are those of the class. What `kept` has is not rounded again."""
        rounder = cls(material, types, importance, **options)
        rounder._walk.observe(rounder._text, rounder)
        return rounder.packed

    def before(self, op: ops.Op, inputs: list[Floats]) -> None:
        """See `Observer`."""
        if isinstance(op, ops.Embed) and self._waits(op.weight):  # rows are looked up: there is nothing to make up for
            self._put(op.weight, self._plain(op.weight, 0, self._walk.weights.whole(op.weight)))
        if isinstance(op, ops.HeadLinear):
            self._moe, self._pool, self._experts[op.weight] = None, None, {}
        if isinstance(op, ops.Moe):
            self._moe, self._pool = op, _Inputs(inputs[0], self._held)
            for name in (op.gate, op.up, op.down):
                if self._waits(name):
                    self._experts[name] = {}

    def matrix(self, name: str, x: Floats) -> None:
        """See `Observer`."""
        if not self._waits(name):
            return
        seen = self._seen(x, self._held)
        if not seen.prepared:
            seen.prepared = [Candidate((0.0, 0.0), Feedback(seen.fitted))]
        self._put(name, self._best(name, 0, self._walk.weights.whole(name), seen, seen.held))

    def expert(self, name: str, expert: int, x: Floats, rows: NDArray[np.intp]) -> None:
        """See `Observer`."""
        if name in self._restored:
            count = self._walk.weights.weights[name].shape[1]
            self._replace(name, expert, self.packed.rows[name][expert * count : (expert + 1) * count])
        if not self._waits(name):
            return
        seen = self._seen(x, self._held[rows])
        pool = None if self._moe is not None and name == self._moe.down else self._pool
        if not seen.prepared:
            many = seen.fitted_rows >= WELL_FED * x.shape[1]
            amounts = (ALONE_TOO if pool is None else OWN_TOO) if many else None
            seen.prepared = candidates(seen.fitted, None if pool is None else pool.fitted, amounts=amounts)
        judge = seen.held  # sums: few tokens count little beside those of the layer
        if pool is not None and pool.held_rows:
            judge = judge + pool.held * np.float32(POOL_ROWS / pool.held_rows)
        weights = self._walk.weights.expert(name, expert)
        packed = self._best(name, expert, weights, seen, judge)
        self._experts[name][expert] = packed
        self._replace(name, expert, packed)

    def after(self, op: ops.Op) -> None:
        """See `Observer`."""
        self._inputs = None
        self._walk.weights.replaced_experts.clear()
        if isinstance(op, ops.Moe):
            for name in (op.gate, op.up, op.down):
                if self._waits(name):
                    self._join(name, op.experts)
        if isinstance(op, ops.HeadLinear) and self._waits(op.weight):
            self._join(op.weight, op.heads)
        if isinstance(op, ops.Linear):
            self._walk.weights.replaced.pop(op.weight, None)

    def _join(self, name: str, count: int) -> None:
        """Experts to one tensor; those that no token chose are rounded plainly."""
        found, weights = self._experts.pop(name), self._walk.weights
        for i in range(count):
            if i not in found:
                found[i] = self._plain(name, i, weights.expert(name, i))
        self._pack(name, np.concatenate([found[i] for i in range(count)]))

    def _waits(self, name: str) -> bool:
        """Whether a weight is still to be rounded."""
        if name not in self._types or name in self.packed.rows:
            return False
        found = self._kept.get(name) if self._kept else None
        if found is None:
            return True
        self._restored.add(name)
        if len(self._walk.weights.weights[name].shape) == 3:
            self._pack(name, found["rows"])
        else:
            self._put(name, found["rows"])
        return False

    def _put(self, name: str, rows: Bytes) -> None:
        """Take a matrix as rounded, and go on with what it is now."""
        shape = self._walk.weights.weights[name].shape
        self._walk.weights.replaced[name] = dequantize(rows, self._types[name]).reshape(shape)
        self._pack(name, rows)

    def _replace(self, name: str, expert: int, rows: Bytes) -> None:
        """Go on with what an expert is now."""
        shape = self._walk.weights.weights[name].shape[1:]
        self._walk.weights.replaced_experts[name, expert] = dequantize(rows, self._types[name]).reshape(shape)

    def _pack(self, name: str, rows: Bytes) -> None:
        """Take a tensor as rounded."""
        self.packed.put(name, self._types[name], rows)
        if self._kept and name not in self._restored:
            self._kept.put(name, {"rows": rows})
        self._done += 1
        if self._progress:
            self._progress("round", self._done, self._total)

    def _plain(self, name: str, index: int, weights: Floats) -> Bytes:
        """Each weight rounded for itself."""
        given = self._importance.of(name)
        importance = None if given is None else given[index]
        return quantize_weighed(weights, self._types[name], importance, threads=self._threads)

    def _seen(self, x: Floats, held: NDArray[np.bool_]) -> _Inputs:
        """Covariances of inputs; made once where several matrices in turn have the same."""
        if self._inputs is None or self._inputs.x is not x:
            self._inputs = _Inputs(x, held)
        return self._inputs

    def _best(self, name: str, index: int, weights: Floats, seen: _Inputs, judge: NDArray[np.float32]) -> Bytes:
        if not seen.fitted_rows:
            return self._plain(name, index, weights)
        return choose_shrink(weights, self._types[name], seen.prepared, judge, threads=self._threads).data


class _Inputs:
    """Sums of outer products of rows to fit on and of rows held out, float32 [in, in]."""

    def __init__(self, x: Floats, held: NDArray[np.bool_]) -> None:
        self.x = x
        self.held_rows, self.fitted_rows = int(held.sum()), int((~held).sum())
        self.fitted, self.held = _outer(x[~held]), _outer(x[held])
        self.prepared: list[Candidate] = []


def _outer(x: Floats) -> NDArray[np.float32]:
    x = np.asarray(x, np.float32)
    return np.asarray(x.T @ x, np.float32)
