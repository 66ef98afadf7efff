"""Where the time of steps goes, by the GPU's own clock: kernels are launched one by one with a point before and
after.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from edgert_models import ops
from edgert_models.graph import Plan

from edgert_runtimes.base import Batch, Limits, OpTime
from edgert_runtimes.batches import first_seen
from edgert_runtimes.cuda.attention import cache_row_bytes
from edgert_runtimes.cuda.device import Cost, Device, Launch
from edgert_runtimes.cuda.program import Work


class Profile:
    """Sums over steps, by kernel and weights."""

    def __init__(self, plan: Plan, device: Device, limits: Limits) -> None:
        self._plan = plan
        self._device = device
        self._limits = limits
        self._totals: dict[str, np.ndarray] = {}

    def launch(self, work: Work, launches: Sequence[Launch], batch: Batch, workspace: int) -> None:
        """Run a work's launches, and wait for them."""
        active = self._experts(work, batch, workspace)
        for launch in launches:
            start = self._device.record()
            self._device.launch(launch)
            end = self._device.record()
            self._device.synchronize(end)
            name = f"{launch.kernel.call.partition('<')[0]} {launch.cost.weights}".rstrip()
            read, multiplied = self._work(launch.cost, active, batch)
            total = self._totals.setdefault(name, np.zeros(4))
            total += (1, self._device.seconds(start, end), read, 2 * multiplied)

    def result(self) -> list[OpTime]:
        """What took longest first."""
        times = [
            OpTime(name, int(calls), float(seconds), int(read), int(operations))
            for name, (calls, seconds, read, operations) in self._totals.items()
        ]
        return sorted(times, key=lambda item: -item.seconds)

    def _experts(self, work: Work, batch: Batch, workspace: int) -> int:
        """How many different experts the rows of a mixture chose."""
        if work.ids is None:
            return 0
        op = self._plan.ops[work.op]
        assert isinstance(op, ops.Moe)
        ids = np.empty(len(batch.tokens) * op.used, np.int32)
        self._device.download(ids.view(np.uint8), workspace + work.ids)
        self._device.synchronize()
        return len(np.unique(ids))

    def _work(self, cost: Cost, active: int, batch: Batch) -> tuple[int, int]:
        """Bytes read of weights and cache, and multiply-adds."""
        read, multiplied, op = cost.bytes + active * cost.expert_bytes, cost.products, cost.attend
        if op is not None:
            seen = batch.positions + 1 - first_seen(batch.positions, op.reach)
            last = np.zeros(len(batch.lengths), np.int64)
            np.maximum.at(last, batch.sequence, seen)
            read += int(last.sum()) * sum(cache_row_bytes(self._plan.caches[op.layer], self._limits))
            multiplied += int(seen.sum()) * (op.q.width + op.out.width)
        return read, multiplied
