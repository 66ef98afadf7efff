"""A loaded model on MLX."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
from edgert_models import ops
from edgert_models.errors import BackendError, CancelledError, RequestError
from edgert_models.graph import Plan

from edgert_runtimes.base import Batch, Float32, Limits, LoadReport, OpTime, WeightProvider
from edgert_runtimes.batches import check_batch
from edgert_runtimes.kv_types import KV_TYPES
from edgert_runtimes.mlx.cache import KINDS, LayerCache
from edgert_runtimes.mlx.lower import Part, Values, lower, make_parts, run_parts
from edgert_runtimes.mlx.profile import Profile
from edgert_runtimes.mlx.step import Inputs, Step
from edgert_runtimes.mlx.views import grouped, make_views
from edgert_runtimes.mlx.weights import Layout, Weights


class MlxSession:
    """See Session. Calls from several threads wait for each other."""

    def __init__(
        self,
        plan: Plan,
        weights: Weights,
        layouts: dict[str, Layout],
        dtype: mx.Dtype,
        limits: Limits,
        report: LoadReport,
        provider: WeightProvider,
    ) -> None:
        self.limits = limits
        self.report = report
        self._plan = plan
        self._layouts = layouts
        self._provider = provider
        functions = lower(plan, weights, dtype)
        self._parts = {value.id: make_parts(plan, functions, weights, value) for value in (plan.logits, plan.hidden)}
        self._single = make_parts(plan, functions, weights, plan.logits, single=True)
        kind, slots = KINDS[KV_TYPES[limits.kv_type]], limits.blocks * limits.block_size
        self._caches = [LayerCache(kind, cache.kv_heads, slots, cache.head_size) for cache in plan.caches]
        self._settle()
        self._windows = {op.window for op in plan.ops if isinstance(op, ops.Attend)}
        self._mixtures = [op for op in plan.ops if isinstance(op, ops.Moe)]
        self._lock = threading.Lock()
        self._closed = self._interrupted = False
        self._profile: Profile | None = None

    def step(self, batch: Batch, *, hidden: bool = False) -> Float32:
        """See Session."""
        with self._lock:
            self._check_open()
            check_batch(batch, self.limits, self._plan.spec.vocabulary)
            self._provider.check()
            self._interrupted = False
            value = self._plan.hidden if hidden else self._plan.logits
            moved, places = grouped(batch)
            step = self._step(moved)
            parts = self._parts[value.id] if self._profile is None or hidden else self._single
            if value.picked and not len(batch.pick):  # the cache is all that is wanted
                parts = parts[: 1 + max((index for index, part in enumerate(parts) if part.attends), default=-1)]
            try:
                outputs = self._run(parts, step, moved)
                mx.eval(outputs, step.peaks)
            finally:
                self._settle()
            self._check_routers(step)
            if value.id not in outputs:
                return np.empty((0, value.width), np.float32)
            out = np.array(outputs[value.id].astype(mx.float32))
        return out if places is None or value.picked else out[places]

    def interrupt(self) -> None:
        """See Session."""
        self._interrupted = True

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See Session; RequestError for a block that does not exist."""
        with self._lock:
            self._check_open()
            for pair in pairs:
                if not all(0 <= block < self.limits.blocks for block in pair):
                    raise RequestError(f"blocks {pair}: the cache has blocks 0 to {self.limits.blocks - 1}")
            for cache in self._caches:
                cache.copy_blocks(pairs, self.limits.block_size)
            self._settle()

    def profile(self, on: bool) -> list[OpTime]:
        """See Session. Ops are waited for one by one meanwhile, which takes longer than to run them together."""
        with self._lock:
            self._check_open()
            found = [] if self._profile is None else self._profile.result()
            self._profile = Profile(self._plan, self._layouts, self.limits) if on else None
        return found

    def close(self) -> None:
        """See Session. Waits for a step that runs."""
        with self._lock:
            self._closed = True
            self._parts, self._single, self._caches = {}, [], []
            mx.clear_cache()

    def _step(self, batch: Batch) -> Step:
        arrays = (mx.array(array) for array in (batch.tokens, batch.positions, batch.slots, batch.pick))
        views = {window: make_views(batch, self.limits.block_size, window) for window in self._windows}
        return Step(Inputs(*arrays), views, self._caches)

    def _run(self, parts: Sequence[Part], step: Step, batch: Batch) -> Values:
        if self._profile is not None:
            return run_parts(parts, step, compiled=False, after=self._profile.timer(batch))
        decoding = len(batch.tokens) == len(batch.tables)  # shapes that come again
        return run_parts(parts, step, compiled=decoding, after=None if decoding else self._pace())

    def _pace(self) -> Callable[[Part, Values], None]:
        """Submit parts as they are built, and wait for the one before: a device always has work, memory is given back
        early, and an interrupted step ends soon.
        """
        before: Values = {}

        def after(part: Part, outputs: Values) -> None:
            nonlocal before
            if self._interrupted:
                raise CancelledError("the step was interrupted")
            mx.async_eval(outputs)  # type: ignore[no-untyped-call]
            mx.eval(before)
            before = outputs

        return after

    def _settle(self) -> None:
        """Compute what the caches still have to: other threads cannot."""
        mx.eval([cache.arrays for cache in self._caches])

    def _check_routers(self, step: Step) -> None:
        """BackendError where a mixture had a logit that is NaN, or infinite, which softmax makes NaN."""
        peaks = np.array([peak.item() for peak in step.peaks])
        for op in [op for op, peak in zip(self._mixtures, peaks, strict=False) if not peak < np.inf]:
            reason = "the weights are damaged, or activations overflow"
            raise BackendError(f"the router before {op.gate} gave NaN; {reason}")

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the session is closed")
