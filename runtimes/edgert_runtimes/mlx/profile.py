"""Where the time of a step goes, op by op."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from math import prod

import mlx.core as mx
import numpy as np
from edgert_models import ops
from edgert_models.graph import Plan

from edgert_runtimes.base import Batch, Limits, OpTime
from edgert_runtimes.batches import first_seen
from edgert_runtimes.kv_types import KV_TYPES
from edgert_runtimes.mlx.lower import Part
from edgert_runtimes.mlx.weights import Layout


class Profile:
    """Sums over steps, by what is done with which weights."""

    def __init__(self, plan: Plan, layouts: Mapping[str, Layout], limits: Limits) -> None:
        self._weights = frozenset(plan.weights)
        self._layouts = layouts
        self._position_bytes = [KV_TYPES[limits.kv_type].row_bytes(cache.width) for cache in plan.caches]
        self._totals: dict[str, list[float]] = {}

    def timer(self, batch: Batch) -> Callable[[Part, list[mx.array]], None]:
        """What `run_parts` is to tell of parts of one op each."""
        begin = time.perf_counter()

        def after(part: Part, outputs: list[mx.array]) -> None:
            nonlocal begin
            mx.eval(outputs)
            now = time.perf_counter()
            ((op, _),) = part.ops
            total = self._totals.setdefault(self._label(op), [0, 0.0, 0, 0])
            work = self._work(op, len(outputs[0]), batch)
            for index, amount in enumerate((1, now - begin, *work)):
                total[index] += amount
            begin = time.perf_counter()

        return after

    def result(self) -> list[OpTime]:
        """What took longest first."""
        times = [
            OpTime(name, int(calls), seconds, int(read), int(operations))
            for name, (calls, seconds, read, operations) in self._totals.items()
        ]
        return sorted(times, key=lambda item: -item.seconds)

    def _names(self, op: ops.Op) -> list[str]:
        values = (getattr(op, field.name) for field in fields(op))
        return [value for value in values if isinstance(value, str) and value in self._weights]

    def _label(self, op: ops.Op) -> str:
        """The op and its weights without their layers."""
        parts = (name.removesuffix(".weight").split(".") for name in self._names(op))
        names = (".".join(part[2:] if part[0] == "blk" else part) for part in parts)
        return " ".join([type(op).__name__, *names])

    def _work(self, op: ops.Op, rows: int, batch: Batch) -> tuple[int, int]:
        """Bytes read of weights and cache, multiplications and additions. Rows are taken to choose different experts,
        as far as there are any.
        """
        if isinstance(op, ops.Attend):
            seen = batch.positions + 1 - first_seen(batch.positions, op.reach)
            last = np.zeros(len(batch.tables), np.int64)
            np.maximum.at(last, batch.sequence, seen)
            return int(last.sum()) * self._position_bytes[op.layer], 2 * int(seen.sum()) * (op.q.width + op.out.width)
        if not isinstance(op, ops.Linear | ops.HeadLinear | ops.Moe):
            return 0, 0
        read = operations = 0
        for name in self._names(op):
            layout = self._layouts[name]
            if len(layout.stored.shape) == 3 and isinstance(op, ops.Moe):
                read += layout.nbytes * min(op.experts, rows * op.used) // op.experts
                operations += 2 * rows * op.used * prod(layout.stored.shape[1:])
            else:
                read += layout.nbytes
                operations += 2 * rows * prod(layout.stored.shape) if len(layout.stored.shape) > 1 else 0
        return read, operations
