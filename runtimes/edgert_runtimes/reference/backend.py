"""Runs a plan op by op in NumPy, with weights dequantized as they are needed."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from itertools import chain

import numpy as np
from edgert_models.errors import BackendError, MemoryBudgetError, UnsupportedError
from edgert_models.graph import Plan
from edgert_quant.blocks import BlockType
from numpy.typing import NDArray

from edgert_runtimes.base import (
    Batch,
    Float32,
    Limits,
    LoadedWeight,
    LoadReport,
    OpTime,
    Probe,
    Progress,
    WeightProvider,
)
from edgert_runtimes.batches import check_windows, runs_of
from edgert_runtimes.kv_types import KV_TYPES, check_kv_type
from edgert_runtimes.reference.cache import Cache
from edgert_runtimes.reference.ops import Weights, run
from edgert_runtimes.reference.recurrent import NO_RUNS, RECURRENT, recur
from edgert_runtimes.storing import check_blocks, check_rows, gather, scatter
from edgert_runtimes.weights import check_weights

_WHOLE_NUMBERS = {BlockType.I8, BlockType.I16, BlockType.I32, BlockType.I64}


class ReferenceBackend:
    """NumPy on any machine."""

    name = "reference"

    def probe(self) -> Probe:
        """Always available."""
        return Probe(True, details={"cpu": platform.processor() or platform.machine(), "numpy": np.__version__})

    def warmup(self, progress: Progress | None = None) -> int:
        """Nothing is compiled."""
        return 0

    def load(
        self, plan: Plan, weights: WeightProvider, limits: Limits, progress: Progress | None = None
    ) -> ReferenceSession:
        """Check the weights against the plan; nothing is copied."""
        check_weights(plan, weights)
        for name in plan.weights:
            if weights.weights[name].type in _WHOLE_NUMBERS:
                raise UnsupportedError(f"tensor {name}: integers cannot be weights")
        check_kv_type(limits.kv_type, plan)
        if progress:
            progress("load", 1, 1)
        return ReferenceSession(plan, weights, limits)


class ReferenceSession:
    """A plan with its caches."""

    def __init__(self, plan: Plan, weights: WeightProvider, limits: Limits) -> None:
        start = time.perf_counter()
        cache_bytes = 4 * sum(limits.blocks_of(cache) * limits.block_size * cache.width for cache in plan.caches)
        cache_bytes += 4 * sum(limits.states * state.size for state in plan.states)
        if limits.memory is not None and cache_bytes > limits.memory:
            raise MemoryBudgetError(
                f"the cache needs {cache_bytes} bytes, {limits.memory} are allowed",
                needed=cache_bytes,
                available=limits.memory,
            )
        self.limits = limits
        self._plan = plan
        self._weights = Weights(weights)
        self._caches = [
            Cache(limits.blocks_of(cache) * limits.block_size, cache, limits.block_size, KV_TYPES[limits.kv_type])
            for cache in plan.caches
        ]
        self._states = [np.zeros((limits.states, *state.shape), np.float32) for state in plan.states]
        self._closed = False
        self.report = LoadReport(
            backend="reference",
            threads=1,
            instruction_set="numpy",
            weights=tuple(
                LoadedWeight(name, weights.weights[name].type, "read from the file when needed", 0)
                for name in plan.weights
            ),
            cache_bytes=cache_bytes,
            workspace_bytes=0,
            seconds=time.perf_counter() - start,
        )

    def step(self, batch: Batch, *, hidden: bool = False) -> Float32:
        """See Session."""
        if self._closed:
            raise BackendError("the session is closed")
        check_windows(batch, self.limits, self._plan)
        runs = runs_of(batch, self.limits) if self._states else NO_RUNS
        values: dict[int, Float32] = {}
        target = self._plan.hidden if hidden else self._plan.logits
        for op in self._plan.ops:
            inputs = [values[value.id] for value in op.inputs]
            if isinstance(op, RECURRENT):
                values[op.out.id] = recur(op, runs, self._weights, self._states[op.state], inputs)
            else:
                values[op.out.id] = run(op, batch, self._weights, self._caches, inputs)
            if op.out.id == target.id:
                break
        return values[target.id]

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See Session; RequestError for a block that does not exist."""
        check_blocks(chain.from_iterable(pairs), self.limits)
        for source, target in pairs:
            for cache in self._in_blocks(windows=False):
                cache.copy_block(source, target)

    def read_blocks(self, blocks: Sequence[int], *, windows: bool = False) -> NDArray[np.uint8]:
        """See StoringSession."""
        return gather(self._block_parts(blocks, windows), blocks)

    def write_blocks(self, blocks: Sequence[int], content: NDArray[np.uint8], *, windows: bool = False) -> None:
        """See StoringSession."""
        scatter(self._block_parts(blocks, windows), blocks, content)

    def read_states(self, slots: Sequence[int]) -> NDArray[np.uint8]:
        """See StoringSession."""
        check_rows(slots, self.limits.states, "slot")
        return gather(self._state_parts(), slots)

    def write_states(self, slots: Sequence[int], content: NDArray[np.uint8]) -> None:
        """See StoringSession."""
        check_rows(slots, self.limits.states, "slot")
        scatter(self._state_parts(), slots, content)

    def _block_parts(self, blocks: Sequence[int], windows: bool) -> list[NDArray[np.uint8]]:
        """Keys and values of each layer, [blocks, bytes of one], of which these are wanted."""
        count = self.limits.window_blocks if windows else self.limits.blocks
        check_rows(blocks, count, "block")
        kept = [array for cache in self._in_blocks(windows) for array in (cache.keys, cache.values) if array.size]
        return [array.view(np.uint8).reshape(count, -1) for array in kept]

    def _in_blocks(self, windows: bool) -> list[Cache]:
        """The caches of layers with a window that have blocks of their own, or all others."""
        return [cache for cache in self._caches if self.limits.has_own_blocks(cache.sizes) == windows]

    def _state_parts(self) -> list[NDArray[np.uint8]]:
        return [array.reshape(self.limits.states, -1).view(np.uint8) for array in self._states]

    def interrupt(self) -> None:
        """See Session: steps of this backend run to their end."""

    def profile(self, on: bool) -> list[OpTime]:
        """See Session: this backend does not measure."""
        return []

    def close(self) -> None:
        """See Session."""
        self._closed = True
        self._caches, self._states = [], []
