"""A loaded model on the GPU.

A step in which every sequence has one row is noted as a graph the first time, and repeated as a whole from then on:
what differs from step to step is in the GPU's memory. Its rows are padded to a number that there is a graph for.
Other steps are launched kernel by kernel, their picked rows in pieces whose logits have room.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from itertools import chain

import numpy as np
from edgert_models import ops
from edgert_models.errors import BackendError
from edgert_models.graph import Plan
from edgert_models.ops import Value
from numpy.typing import NDArray

from edgert_runtimes.base import (
    NO_ADAPTERS,
    Batch,
    Draw,
    Drawn,
    Float32,
    Int32,
    Limits,
    LoadReport,
    OpTime,
    WeightProvider,
)
from edgert_runtimes.batches import adapter_count, adapters_of, asks_for, check_batch, runs_of
from edgert_runtimes.cuda.attention import SINGLE_ROWS, cache_row_bytes, layer_bytes, row_blocks, splits_for, tile_rows
from edgert_runtimes.cuda.device import Device, Launch
from edgert_runtimes.cuda.drawing import Drawing
from edgert_runtimes.cuda.inputs import NO_RUNS, NO_TILES, Inputs
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.offload.runner import Offload
from edgert_runtimes.cuda.placing import most_picked
from edgert_runtimes.cuda.profile import Profile
from edgert_runtimes.cuda.program import Memory, Program, Shape
from edgert_runtimes.cuda.recurrence import state_bytes
from edgert_runtimes.cuda.running import Runner
from edgert_runtimes.experts import ExpertUse, expert_counts
from edgert_runtimes.kv_types import KV_TYPES
from edgert_runtimes.storing import check_blocks, check_content, check_rows


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
        self._process = os.getpid()
        self._profile: Profile | None = None
        self._piece = most_picked(limits, plan.spec.vocabulary)
        self._adapters = adapter_count(plan)
        self._expert_load = expert_counts(plan)
        self._begun: Batch | None = None  # a step ahead, whose tokens were drawn on the GPU
        self._drawing = Drawing(device, min(limits.rows, self._piece), plan.logits.width)
        self._logits = device.allocate(4 * limits.sequences * plan.logits.width)
        self._tile_rows = tile_rows(plan, KV_TYPES[limits.kv_type])
        self._row_blocks = row_blocks(plan)
        self._out = device.pinned(4 * self._piece * max(plan.logits.width, plan.hidden.width))
        self._failed = device.pinned(4 * len(plan.ops)).view(np.int32)
        self._pairs = device.pinned(8 * limits.blocks)
        self._pairs_there = device.allocate(8 * limits.blocks)

    def step(self, batch: Batch, *, hidden: bool = False) -> Float32:
        """See Session. Calls from several threads wait for each other."""
        with self._lock:
            self._prepare(batch)
            begun = self._take_begun(batch)
            if not hidden and self._repeats(batch):
                if not begun:
                    self._repeat(batch)
                return self._fetch(self._plan.logits, len(batch.tokens))
            return self._run(batch, self._plan.hidden if hidden else self._plan.logits)

    def step_ahead(self, batch: Batch, draws: Sequence[Draw], following: Batch) -> Float32 | Drawn:
        """See AheadSession. Where the host takes part in steps, they cannot be begun without it."""
        able = self._offload is None and self._repeats(batch) and self._repeats(following)
        if not able or len(following.tokens) != len(draws):
            return self.step(batch)
        with self._lock:
            self._prepare(batch)
            check_batch(following, self.limits, self._plan)
            if not self._take_begun(batch):
                self._repeat(batch)
            logits, rows = self._plan.logits, len(batch.tokens)
            self._download_failed()
            self._drawing.draw(self._place(logits), draws)
            self._device.copy(self._logits, self._place(logits), 4 * rows * logits.width)
            drawn = self._device.record()
            self._repeat(following, self._drawing.tokens)
            self._begun = following
            self._device.synchronize(drawn)
            self._check_routers()
            return Drawn(self._drawing.drawn[1].copy(), logits.width, lambda: self._bring(rows))

    def interrupt(self) -> None:
        """See Session."""
        self._runner.interrupted = True

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See Session; RequestError for a block that does not exist."""
        with self._lock:
            self._check_open()
            check_blocks(chain.from_iterable(pairs), self.limits)
            self._begun = None
            for first in range(0, len(pairs), self.limits.blocks):
                self._copy_blocks(np.array(pairs[first : first + self.limits.blocks], np.int32))

    def read_blocks(self, blocks: Sequence[int], *, windows: bool = False) -> NDArray[np.uint8]:
        """See StoringSession."""
        with self._lock:
            self._check_open()
            check_blocks(blocks, self.limits, windows=windows)
            return self._read(self._block_places(windows), blocks)

    def write_blocks(self, blocks: Sequence[int], content: NDArray[np.uint8], *, windows: bool = False) -> None:
        """See StoringSession."""
        with self._lock:
            self._check_open()
            check_blocks(blocks, self.limits, windows=windows)
            self._write(self._block_places(windows), blocks, content)

    def read_states(self, slots: Sequence[int]) -> NDArray[np.uint8]:
        """See StoringSession."""
        with self._lock:
            self._check_open()
            check_rows(slots, self.limits.states, "slot")
            return self._read(self._state_places(), slots)

    def write_states(self, slots: Sequence[int], content: NDArray[np.uint8]) -> None:
        """See StoringSession."""
        with self._lock:
            self._check_open()
            check_rows(slots, self.limits.states, "slot")
            self._write(self._state_places(), slots, content)

    def profile(self, on: bool) -> list[OpTime]:
        """See Session. While it is on, kernels are launched one by one, and times are those of the GPU."""
        with self._lock:
            self._check_open()
            found = [] if self._profile is None else self._profile.result()
            self._profile = Profile(self._plan, self._device, self.limits) if on else None
        return found

    @property
    def bandwidth(self) -> int:
        """Bytes a second that the GPU's memory can give, or 0 where the driver does not say."""
        return self._device.facts.bandwidth

    def expert_use(self) -> ExpertUse | None:
        """See OffloadingSession."""
        return None if self._offload is None else self._offload.use()

    def expert_load(self) -> NDArray[np.int64]:
        """See CountingSession. A step that runs is waited for; one that was begun ahead counts, even if it is lost."""
        with self._lock:
            if not self._closed and self._expert_load.size:
                self._check_open()
                self._device.download(self._expert_load.reshape(-1).view(np.uint8), self._memory.loads)
                self._device.synchronize(self._device.record())
            return self._expert_load.copy()

    def close(self) -> None:
        """See Session. Waits for a step that runs."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._offload is not None:
                    self._offload.close()
                self._device.close()

    def _prepare(self, batch: Batch) -> None:
        self._check_open()
        if self._offload is not None:
            self._provider.check()
        check_batch(batch, self.limits, self._plan)
        self._runner.interrupted = False

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the session is closed")
        if os.getpid() != self._process:
            raise BackendError(
                "this session was loaded before the process forked, and a child cannot use its GPU: "
                "load the model in the child, or start it by spawn"
            )
        self._device.bind()

    def _repeats(self, batch: Batch) -> bool:
        """Whether every row is of a sequence of its own, and all results are wanted."""
        rows = len(batch.tokens)
        if self._profile is not None or graph_rows(rows, self.limits) > self._piece:
            return False
        return len(np.unique(batch.sequence)) == rows and np.array_equal(batch.pick, np.arange(rows))

    def _repeat(self, batch: Batch, tokens: int | None = None) -> None:
        """Begin a step from its graphs; `tokens` is where its tokens are on the GPU, if the batch has others."""
        rows = graph_rows(len(batch.tokens), self.limits)
        runs = self._runs(batch)
        self._inputs.set(batch, rows, runs=runs, adapters=self._adapters_of(batch))
        if tokens is not None:
            self._device.copy(self._inputs.addresses["tokens"], tokens, 4 * len(batch.tokens))
        shape = Shape(rows, rows, splits=self._splits(batch, rows), runs=rows if len(runs) else 0)
        self._runner.repeat(self._program.up_to(self._plan.logits), shape, batch)

    def _take_begun(self, batch: Batch) -> bool:
        """Whether the step that was begun ahead, if there is one, is this one."""
        following, self._begun = self._begun, None
        if following is None or not np.array_equal(batch.tokens, self._drawing.drawn[0]):
            return False
        return asks_for(batch, following)

    def _run(self, batch: Batch, value: Value) -> Float32:
        works = self._program.up_to(value)
        rows, picked = len(batch.tokens), len(batch.pick)
        few = rows <= SINGLE_ROWS
        tiles = NO_TILES if few or not self._tile_rows else tiles_of(batch, self._tile_rows)
        splits = self._splits(batch, rows) if few else 1
        runs = self._runs(batch)
        self._inputs.set(batch, rows, tiles, runs, self._adapters_of(batch))
        common = [work for work in works if not work.picked]
        self._runner.run(common, Shape(rows, 0, 0, splits, len(tiles), len(runs)), batch, self._profile)
        if not value.picked:
            return self._fetch(value, rows)
        found = [np.empty((0, value.width), np.float32)]
        for first in range(0, picked, self._piece):
            count = min(self._piece, picked - first)
            shape = Shape(rows, count, first, splits, len(tiles))
            self._runner.run([work for work in works if work.picked], shape, batch, self._profile)
            found.append(self._fetch(value, count))
        return np.concatenate(found) if len(found) > 2 else found[-1]

    def _runs(self, batch: Batch) -> Int32:
        """The runs of rows that recurrent states go through."""
        if not self._plan.states:
            return NO_RUNS
        runs = runs_of(batch, self.limits)
        return runs[runs[:, 1] > 0]

    def _adapters_of(self, batch: Batch) -> Int32:
        """The adapter of each row, where the plan has any."""
        return adapters_of(batch, self._adapters) if self._adapters else NO_ADAPTERS

    def _splits(self, batch: Batch, rows: int) -> int:
        longest = int(batch.positions.max(initial=0)) + 1
        return splits_for(rows, longest, self._row_blocks, self._device.facts.multiprocessors)

    def _place(self, value: Value) -> int:
        return self._memory.workspace + self._program.places[value.id]

    def _fetch(self, value: Value, count: int) -> Float32:
        """Wait for a value's rows."""
        found = []
        for first in range(0, max(count, 1), self._piece):
            self._download_failed()
            found.append(
                self._taken(self._place(value) + 4 * first * value.width, min(self._piece, count - first), value)
            )
            self._check_routers()
        return np.concatenate(found) if len(found) > 1 else found[0]

    def _download_failed(self) -> None:
        """Begin to copy whether a router failed."""
        self._device.download(self._failed.view(np.uint8), self._memory.workspace + self._program.failed)

    def _taken(self, address: int, rows: int, value: Value) -> Float32:
        """Wait for rows of a value that lie at an address."""
        out = self._out[: 4 * rows * value.width]
        self._device.download(out, address)
        self._device.synchronize(self._device.record())
        return out.view(np.float32).reshape(rows, value.width).copy()

    def _bring(self, rows: int) -> Float32:
        """The logits that tokens were drawn from, which the step that has begun since did not touch."""
        with self._lock:
            self._check_open()
            return self._taken(self._logits, rows, self._plan.logits)

    def _check_routers(self) -> None:
        if not self._failed.any():
            return
        op = self._plan.ops[int(self._failed.argmax())]
        assert isinstance(op, ops.Moe)
        self._failed[:] = 0
        self._device.upload(self._memory.workspace + self._program.failed, self._failed.view(np.uint8))
        raise BackendError(f"the router before {op.gate} gave NaN; the weights are damaged, or activations overflow")

    def _copy_blocks(self, pairs: np.ndarray) -> None:
        raw = pairs.reshape(-1).view(np.uint8)
        self._pairs[: raw.nbytes] = raw
        self._device.upload(self._pairs_there, self._pairs[: raw.nbytes])
        for start, size in self._block_places(windows=False):
            where = {"cache": start, "pairs": self._pairs_there, "block_bytes": size}
            self._device.launch(Launch(catalogue.copy_blocks(), **where, count=len(pairs)))
        self._device.synchronize(self._device.record())

    def _block_places(self, windows: bool) -> list[tuple[int, int]]:
        """Where the keys and the values of each layer with a window that has blocks of its own, or of all others,
        begin, and the bytes of a block of them.
        """
        found, start = [], self._memory.cache
        for cache in self._plan.caches:
            sizes = zip(cache_row_bytes(cache, self.limits), layer_bytes(cache, self.limits), strict=True)
            for row_bytes, whole in sizes:
                if row_bytes and self.limits.has_own_blocks(cache) == windows:
                    found.append((start, self.limits.block_size * row_bytes))
                start += whole
        return found

    def _state_places(self) -> list[tuple[int, int]]:
        """Where slot 0 of each recurrent state is, and the bytes of a slot."""
        found, start = [], self._memory.states
        for state in self._plan.states:
            found.append((start, 4 * state.size))
            start += state_bytes(state.size, self.limits)
        return found

    def _read(self, places: Sequence[tuple[int, int]], rows: Sequence[int]) -> NDArray[np.uint8]:
        content = np.empty((len(rows), sum(size for _, size in places)), np.uint8)
        for row, out in zip(rows, content, strict=True):
            first = 0
            for start, size in places:
                self._device.download(out[first : first + size], start + row * size)
                first += size
        self._device.synchronize(self._device.record())
        return content

    def _write(self, places: Sequence[tuple[int, int]], rows: Sequence[int], content: NDArray[np.uint8]) -> None:
        check_content(content, len(rows), sum(size for _, size in places))
        self._begun = None
        whole = np.ascontiguousarray(content)
        for row, source in zip(rows, whole, strict=True):
            first = 0
            for start, size in places:
                self._device.upload(start + row * size, source[first : first + size])
                first += size
        self._device.synchronize(self._device.record())  # before what is copied from is gone


def tiles_of(batch: Batch, most: int) -> np.ndarray:
    """Stretches (first row, rows) of the rows of one sequence that follow one another, at most so many in each."""
    borders = np.flatnonzero(np.diff(batch.sequence)) + 1
    found = [
        (first, min(most, end - first))
        for start, end in zip([0, *borders], [*borders, len(batch.sequence)], strict=True)
        for first in range(start, end, most)
    ]
    return np.array(found, np.int32).reshape(-1, 2)
