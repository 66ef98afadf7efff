"""Where the time of a step goes: the executor notes when each record begins, and what a record reads and multiplies is
known from its fields.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from edgert_models import ops
from edgert_models.graph import Plan
from edgert_quant.jit import Kernel
from numpy.typing import NDArray

from edgert_runtimes.base import Batch, Limits, OpTime
from edgert_runtimes.batches import first_seen
from edgert_runtimes.cpu.attention import block_bytes
from edgert_runtimes.cpu.kernels import attend, gates, heads, linear, moe, softmax, table
from edgert_runtimes.cpu.program import Linked, Place, Program, Record
from edgert_runtimes.cpu.weights import Loaded, Matrix

ALWAYS = (
    softmax.weigh,
    softmax.merge_part,
    softmax.finish_part,
    *gates.ACTIVATIONS.values(),
    *gates.ROW_GATES.values(),
)
"""Kernels that are called whatever the types."""

NOTED = 1024
"""Steps whose measurements wait to be summed up."""


class Profile:
    """Sums over steps. `times` is what the executor writes: int64 [records + 1], in nanoseconds."""

    def __init__(
        self, plan: Plan, program: Program, linked: Linked, loaded: Mapping[str, Loaded], limits: Limits
    ) -> None:
        self.times = np.zeros(len(program.records) + 1, np.int64)
        self._plan = plan
        self._limits = limits
        self._records = program.records
        self._labels = [_label(record) for record in program.records]
        self._words = linked.words
        self._matrices = [[loaded[name] for name in _weights(record)] for record in program.records]
        self._totals: dict[str, NDArray[np.float64]] = {}
        self._noted: list[tuple[NDArray[np.float64], NDArray[np.int64], Batch]] = []

    def add(self, batch: Batch, records: int) -> None:
        """Count a step that ran the first `records` records; the sums are made later, so that steps stay quick."""
        active = self._words[:records, moe.N_ACTIVE].copy()
        self._noted.append((np.diff(self.times[: records + 1]) / 1e9, active, batch))
        if len(self._noted) == NOTED:
            self._sum_up()

    def _sum_up(self) -> None:
        for seconds, active, batch in self._noted:
            for index, record in enumerate(self._records[: len(seconds)]):
                rows = len(batch.pick if record.count == table.PICKED else batch.tokens) * record.per_row
                read, multiplied = self._work(index, rows, int(active[index]), batch)
                total = self._totals.setdefault(self._labels[index], np.zeros(4))
                total += (1, seconds[index], read, 2 * multiplied)
        self._noted.clear()

    def _work(self, index: int, rows: int, experts: int, batch: Batch) -> tuple[int, int]:
        """Bytes read of weights (of matrices of several experts, so many) and cache, and multiply-adds."""
        record = self._records[index]
        op = self._plan.ops[record.op]
        if isinstance(op, ops.Attend) and record.run is attend.attend:
            seen = batch.positions + 1 - first_seen(batch.positions, op.reach)
            last = np.zeros(len(batch.lengths), np.int64)
            np.maximum.at(last, batch.sequence, seen)
            block = op.kv_heads * sum(block_bytes(self._plan.caches[op.layer], self._limits))
            return int(last.sum()) * block // self._limits.block_size, int(seen.sum()) * (op.q.width + op.out.width)
        if record.run not in (linear.linear, heads.head_linear, moe.inward, moe.outward):
            return 0, 0
        read = multiplied = 0
        for matrix in self._matrices[index]:
            if not isinstance(matrix, Matrix):
                continue  # a bias
            every = matrix.experts if record.run is heads.head_linear else 1
            active = experts if matrix.experts > every else every
            read += matrix.data.nbytes // matrix.experts * active
            multiplied += rows * every * matrix.rows * matrix.k
        return read, multiplied

    def result(self) -> list[OpTime]:
        """What took longest first."""
        self._sum_up()
        times = [
            OpTime(name, int(calls), seconds, int(read), int(operations))
            for name, (calls, seconds, read, operations) in self._totals.items()
        ]
        return sorted(times, key=lambda item: -item.seconds)


def _weights(record: Record) -> list[str]:
    places = [item for item in record.fields.values() if isinstance(item, Place) and item.area == "weight"]
    return list(dict.fromkeys(str(place.name) for place in places))


def _label(record: Record) -> str:
    """The kernel, the kernel it calls where that depends on a type, and its weights without their layers."""
    called = [item.name for item in record.fields.values() if isinstance(item, Kernel) and item not in ALWAYS]
    names = [name.removesuffix(".weight").partition(".")[2].partition(".")[2] or name for name in _weights(record)]
    return " ".join([record.run.name, *dict.fromkeys([*names, *called])])
