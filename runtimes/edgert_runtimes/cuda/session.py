"""A loaded model on the GPU.

A step in which every sequence has one row is noted as a graph the first time, and repeated as a whole from then on:
what differs from step to step is in the GPU's memory. Its rows are padded to a number that there is a graph for.
Other steps are launched kernel by kernel, their picked rows in pieces whose logits have room.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from edgert_models import ops
from edgert_models.errors import BackendError, RequestError
from edgert_models.graph import Plan
from edgert_models.ops import Value

from edgert_runtimes.base import Batch, Float32, Limits, LoadReport, OpTime, WeightProvider
from edgert_runtimes.batches import check_batch
from edgert_runtimes.cuda.attention import SINGLE_ROWS, cache_row_bytes, layer_bytes, splits_for, tile_rows
from edgert_runtimes.cuda.device import Device, Launch
from edgert_runtimes.cuda.inputs import NO_TILES, Inputs
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.offload.runner import Offload
from edgert_runtimes.cuda.placing import most_picked
from edgert_runtimes.cuda.profile import Profile
from edgert_runtimes.cuda.program import Memory, Program, Shape
from edgert_runtimes.cuda.running import Runner
from edgert_runtimes.experts import ExpertUse
from edgert_runtimes.kv_types import KV_TYPES


def graph_rows(count: int, limits: Limits) -> int:
    """The number of rows that so many are padded to: each up to 8 has its own kernels, then powers of two."""
    return min(count if count <= SINGLE_ROWS else 1 << (count - 1).bit_length(), limits.rows)


class CudaSession:
    """See Session."""

    def __init__(
        self,
        plan: Plan,
        program: Program,
        device: Device,
        memory: Memory,
        inputs: Inputs,
        limits: Limits,
        report: LoadReport,
        provider: WeightProvider,
        offload: Offload | None,
    ) -> None:
        self.limits = limits
        self.report = report
        self._plan = plan
        self._program = program
        self._device = device
        self._memory = memory
        self._inputs = inputs
        self._provider = provider
        self._offload = offload
        self._runner = Runner(device, memory, offload)
        self._lock = threading.Lock()
        self._closed = False
        self._profile: Profile | None = None
        self._piece = most_picked(limits, plan.spec.vocabulary)
        self._tile_rows = tile_rows(plan, KV_TYPES[limits.kv_type])
        self._kv_heads = min((cache.kv_heads for cache in plan.caches), default=1)
        self._out = device.pinned(4 * self._piece * max(plan.logits.width, plan.hidden.width))
        self._failed = device.pinned(4 * len(plan.ops)).view(np.int32)
        self._pairs = device.pinned(8 * limits.blocks)
        self._pairs_there = device.allocate(8 * limits.blocks)

    def step(self, batch: Batch, *, hidden: bool = False) -> Float32:
        """See Session. Calls from several threads wait for each other."""
        with self._lock:
            self._check_open()
            if self._offload is not None:
                self._provider.check()
            check_batch(batch, self.limits, self._plan.spec.vocabulary)
            self._runner.interrupted = False
            if not hidden and self._repeats(batch):
                return self._decode(batch)
            return self._run(batch, self._plan.hidden if hidden else self._plan.logits)

    def interrupt(self) -> None:
        """See Session."""
        self._runner.interrupted = True

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See Session; RequestError for a block that does not exist."""
        with self._lock:
            self._check_open()
            for pair in pairs:
                if not all(0 <= block < self.limits.blocks for block in pair):
                    raise RequestError(f"blocks {pair}: the cache has blocks 0 to {self.limits.blocks - 1}")
            for first in range(0, len(pairs), self.limits.blocks):
                self._copy_blocks(np.array(pairs[first : first + self.limits.blocks], np.int32))

    def profile(self, on: bool) -> list[OpTime]:
        """See Session. While it is on, kernels are launched one by one, and times are those of the GPU."""
        with self._lock:
            self._check_open()
            found = [] if self._profile is None else self._profile.result()
            self._profile = Profile(self._plan, self._device, self.limits) if on else None
        return found

    def expert_use(self) -> ExpertUse | None:
        """See OffloadingSession."""
        return None if self._offload is None else self._offload.use()

    def close(self) -> None:
        """See Session. Waits for a step that runs."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._offload is not None:
                    self._offload.close()
                self._device.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the session is closed")
        self._device.bind()

    def _repeats(self, batch: Batch) -> bool:
        """Whether every row is of a sequence of its own, and all results are wanted."""
        rows = len(batch.tokens)
        if self._profile is not None or graph_rows(rows, self.limits) > self._piece:
            return False
        return len(np.unique(batch.sequence)) == rows and np.array_equal(batch.pick, np.arange(rows))

    def _decode(self, batch: Batch) -> Float32:
        rows, value = graph_rows(len(batch.tokens), self.limits), self._plan.logits
        self._inputs.set(batch, rows)
        self._runner.repeat(self._program.up_to(value), Shape(rows, rows, splits=self._splits(batch, rows)), batch)
        return self._result(value, len(batch.tokens))

    def _run(self, batch: Batch, value: Value) -> Float32:
        works = self._program.up_to(value)
        rows, picked = len(batch.tokens), len(batch.pick)
        few = rows <= SINGLE_ROWS
        tiles = NO_TILES if few or not self._tile_rows else tiles_of(batch, self._tile_rows)
        splits = self._splits(batch, rows) if few else 1
        self._inputs.set(batch, rows, tiles)
        common = [work for work in works if not work.picked]
        self._runner.run(common, Shape(rows, 0, splits=splits, tiles=len(tiles)), batch, self._profile)
        if not value.picked:
            return self._result(value, rows)
        found = [np.empty((0, value.width), np.float32)]
        for first in range(0, picked, self._piece):
            count = min(self._piece, picked - first)
            shape = Shape(rows, count, first, splits, len(tiles))
            self._runner.run([work for work in works if work.picked], shape, batch, self._profile)
            found.append(self._result(value, count))
        return np.concatenate(found) if len(found) > 2 else found[-1]

    def _splits(self, batch: Batch, rows: int) -> int:
        longest = int(batch.positions.max(initial=0)) + 1
        return splits_for(rows, longest, self._kv_heads, self._device.facts.multiprocessors)

    def _result(self, value: Value, count: int) -> Float32:
        """Wait for a value's rows, and look whether a router failed meanwhile."""
        out = np.empty((count, value.width), np.float32)
        source = self._memory.workspace + self._program.places[value.id]
        self._device.download(self._failed.view(np.uint8), self._memory.workspace + self._program.failed)
        for first in range(0, max(count, 1), self._piece):
            some = out[first : first + self._piece]
            target = self._out[: some.nbytes]
            self._device.download(target, source + 4 * value.width * first)
            self._device.synchronize(self._device.record())
            some[:] = target.view(np.float32).reshape(some.shape)
        if self._failed.any():
            self._raise_router_error(int(self._failed.argmax()))
        return out

    def _raise_router_error(self, index: int) -> None:
        op = self._plan.ops[index]
        assert isinstance(op, ops.Moe)
        self._failed[:] = 0
        self._device.upload(self._memory.workspace + self._program.failed, self._failed.view(np.uint8))
        raise BackendError(f"the router before {op.gate} gave NaN; the weights are damaged, or activations overflow")

    def _copy_blocks(self, pairs: np.ndarray) -> None:
        raw = pairs.reshape(-1).view(np.uint8)
        self._pairs[: raw.nbytes] = raw
        self._device.upload(self._pairs_there, self._pairs[: raw.nbytes])
        start = self._memory.cache
        for cache in self._plan.caches:
            size = self.limits.block_size * cache_row_bytes(cache.width, self.limits)
            for _ in ("keys", "values"):
                where = {"cache": start, "pairs": self._pairs_there}
                self._device.launch(Launch(catalogue.copy_blocks(), **where, count=len(pairs), block_bytes=size))
                start += layer_bytes(cache.width, self.limits)
        self._device.synchronize(self._device.record())


def tiles_of(batch: Batch, most: int) -> np.ndarray:
    """Stretches (first row, rows) of the rows of one sequence that follow one another, at most so many in each."""
    borders = np.flatnonzero(np.diff(batch.sequence)) + 1
    found = [
        (first, min(most, end - first))
        for start, end in zip([0, *borders], [*borders, len(batch.sequence)], strict=True)
        for first in range(start, end, most)
    ]
    return np.array(found, np.int32).reshape(-1, 2)
