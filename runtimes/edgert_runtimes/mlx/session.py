"""A loaded model on MLX."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import cast

import mlx.core as mx
import numpy as np
from edgert_models import ops
from edgert_models.errors import BackendError, CancelledError
from edgert_models.graph import Plan
from edgert_models.ops import Value
from numpy.typing import NDArray

from edgert_runtimes.base import Batch, Draw, Drawn, Float32, Int32, Limits, LoadReport, OpTime, WeightProvider
from edgert_runtimes.batches import adapter_count, adapters_of, asks_for, check_batch
from edgert_runtimes.experts import mixtures_of
from edgert_runtimes.kv_types import KV_TYPES
from edgert_runtimes.mlx.cache import KINDS, LayerCache
from edgert_runtimes.mlx.counts import ExpertCounts
from edgert_runtimes.mlx.device import on_metal
from edgert_runtimes.mlx.forecast import Drawing
from edgert_runtimes.mlx.fusion import MOST_ROWS, fuse, widened
from edgert_runtimes.mlx.lower import Part, Values, lower, make_parts, run_parts
from edgert_runtimes.mlx.profile import Profile
from edgert_runtimes.mlx.runs import make_runs
from edgert_runtimes.mlx.step import Inputs, Pages, Step, highest, make_pages, together
from edgert_runtimes.mlx.streams import give_back, take_streams
from edgert_runtimes.mlx.trial import compare
from edgert_runtimes.mlx.turns import Turns
from edgert_runtimes.mlx.views import grouped, make_views
from edgert_runtimes.mlx.weights import Layout, Weights
from edgert_runtimes.storing import check_blocks, check_content, check_rows


@dataclass(frozen=True, slots=True)
class Running:
    """A step that is built: what was asked for in float32, what routers gave at most, [mixtures, 1], the experts that
    they chose with how many each mixture did, and where the rows belong if they were moved.
    """

    result: mx.array
    peaks: mx.array
    chosen: mx.array
    counts: list[int]
    places: Int32 | None

    @property
    def arrays(self) -> list[mx.array]:
        """What has to be computed."""
        return [self.result, self.peaks, self.chosen]


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
        self._streams = take_streams()
        # Also when a session is forgotten.
        self._finalizer = weakref.finalize(self, give_back, self._streams)
        self._turns = Turns(plan, weights)
        functions = lower(plan, weights, dtype, self._streams.beside, self._turns)
        self._parts = {value.id: make_parts(plan, functions, weights, value) for value in (plan.logits, plan.hidden)}
        self._single = make_parts(plan, functions, weights, plan.logits, single=True)
        kind, size = KINDS[KV_TYPES[limits.kv_type]], limits.block_size
        with mx.stream(self._streams.main):
            self._caches = [LayerCache(kind, cache, size * limits.blocks_of(cache)) for cache in plan.caches]
            self._states = [mx.zeros((limits.states, *state.shape)) for state in plan.states]
            self._settle()
        self._decoding = fuse(plan, functions, weights, dtype, self._streams.beside, self._caches, limits.block_size)
        self._reaches = {op.reach for op in plan.ops if isinstance(op, ops.Attend)}
        self._adapters = adapter_count(plan)
        self._mixtures = list(mixtures_of(plan).values())
        self._expert_counts = ExpertCounts(plan)
        self._drawing = Drawing()
        self._lock = threading.Lock()
        self._closed = self._interrupted = False
        self._profile: Profile | None = None
        self._begun: tuple[Batch, mx.array, Running] | None = None  # a step ahead, and its tokens
        if self._decoding is not None:
            self._choose_decoding()

    def step(self, batch: Batch, *, hidden: bool = False) -> Float32:
        """See Session."""
        with self._lock, mx.stream(self._streams.main):
            self._prepare(batch)
            running = self._take_begun(batch)
            try:
                if running is None or hidden:
                    running = self._begin(batch, self._plan.hidden if hidden else self._plan.logits)
                out = self._finish(running)
            except BaseException:
                self._settle()
                raise
            if self._states or not len(batch.pick):  # else all that was kept has been read for the result
                self._settle()
            return out

    def step_ahead(self, batch: Batch, draws: Sequence[Draw], following: Batch) -> Float32 | Drawn:
        """See AheadSession."""
        if self._profile is not None:
            return self.step(batch)
        with self._lock, mx.stream(self._streams.main):
            self._prepare(batch)
            check_batch(following, self.limits, self._plan)
            running = self._take_begun(batch) or self._begin(batch, self._plan.logits)
            try:
                # Submitted by themselves: what is submitted together is waited for together.
                tokens, certain = self._drawing.draw(running.result, draws)
                mx.async_eval(running.arrays, tokens, certain)  # type: ignore[no-untyped-call]
                begun = self._begin(following, self._plan.logits, tokens)
                mx.async_eval(begun.arrays)  # type: ignore[no-untyped-call]
                self._begun = (following, tokens, begun)
                self._wait(running)
                return Drawn(np.array(certain), running.result.shape[1], lambda: np.asarray(running.result))
            except BaseException:
                self._begun = None
                self._settle()
                raise

    def interrupt(self) -> None:
        """See Session."""
        self._interrupted = True

    def expert_load(self) -> NDArray[np.int64]:
        """See CountingSession."""
        return self._expert_counts.read()

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See Session; RequestError for a block that does not exist."""
        with self._lock, mx.stream(self._streams.main):
            self._check_open()
            check_blocks(chain.from_iterable(pairs), self.limits)
            self._begun = None
            for cache in self._in_blocks(windows=False):
                cache.copy_blocks(pairs, self.limits.block_size)
            self._settle()

    def read_blocks(self, blocks: Sequence[int], *, windows: bool = False) -> NDArray[np.uint8]:
        """See StoringSession."""
        with self._lock, mx.stream(self._streams.main):
            self._check_open()
            check_blocks(blocks, self.limits, windows=windows)
            caches, size = self._in_blocks(windows), self.limits.block_size
            parts = [part for cache in caches for part in cache.read_blocks(blocks, size)]
            return np.concatenate(parts, axis=1) if parts else np.empty((len(blocks), 0), np.uint8)

    def write_blocks(self, blocks: Sequence[int], content: NDArray[np.uint8], *, windows: bool = False) -> None:
        """See StoringSession."""
        size = self.limits.block_size
        with self._lock, mx.stream(self._streams.main):
            self._check_open()
            check_blocks(blocks, self.limits, windows=windows)
            caches = self._in_blocks(windows)
            sizes = [cache.block_bytes(size) for cache in caches]
            check_content(content, len(blocks), sum(map(sum, sizes)))
            self._begun = None
            start = 0
            for cache, own in zip(caches, sizes, strict=True):
                borders = start + np.cumsum([0, *own])
                pieces = [content[:, begin:end] for begin, end in pairwise(borders)]
                cache.write_blocks(blocks, size, pieces)
                start = int(borders[-1])
            self._settle()

    def read_states(self, slots: Sequence[int]) -> NDArray[np.uint8]:
        """See StoringSession."""
        with self._lock, mx.stream(self._streams.main):
            self._check_open()
            check_rows(slots, self.limits.states, "slot")
            rows = [np.asarray(state[mx.array(list(slots))]).reshape(len(slots), -1) for state in self._states]
            return np.concatenate(rows, axis=1).view(np.uint8)

    def write_states(self, slots: Sequence[int], content: NDArray[np.uint8]) -> None:
        """See StoringSession."""
        with self._lock, mx.stream(self._streams.main):
            self._check_open()
            check_rows(slots, self.limits.states, "slot")
            sizes = [4 * state.size for state in self._plan.states]
            check_content(content, len(slots), sum(sizes))
            self._begun = None
            pieces = np.split(content, np.cumsum(sizes)[:-1], axis=1)
            for index, (state, piece) in enumerate(zip(self._plan.states, pieces, strict=True)):
                values = np.ascontiguousarray(piece).view(np.float32).reshape(len(slots), *state.shape)
                self._states[index][mx.array(list(slots))] = mx.array(values)
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
            self._drawing.close()
            if self._decoding is not None:
                self._decoding.close()
            self._turns.close()
            for part in (*self._single, *(part for parts in self._parts.values() for part in parts)):
                part.close()
            self._parts, self._single, self._caches, self._states, self._begun = {}, [], [], [], None
            mx.clear_cache()
            self._finalizer()

    def _choose_decoding(self) -> None:
        """Keep steps of few kernels where there is a GPU and they are faster."""
        decoding, self._decoding = self._decoding, None
        if not on_metal():
            return

        def step(batch: Batch, fused: bool) -> Float32:
            self._decoding = decoding if fused else None
            return self.step(batch)

        trial = compare(step, self.limits)
        self._decoding = decoding if trial.fused else None
        self._expert_counts = ExpertCounts(self._plan)
        self.report = replace(self.report, instruction_set=f"{self.report.instruction_set}; {trial.finding}")

    def _prepare(self, batch: Batch) -> None:
        self._check_open()
        check_batch(batch, self.limits, self._plan)
        self._provider.check()
        self._interrupted = False

    def _take_begun(self, batch: Batch) -> Running | None:
        """The step that was begun ahead, if it is this one."""
        if self._begun is None:
            return None
        (following, tokens, running), self._begun = self._begun, None
        same = asks_for(batch, following) and np.array_equal(batch.tokens, np.asarray(tokens))
        return running if same else None

    def _begin(self, batch: Batch, value: Value, tokens: mx.array | None = None) -> Running:
        """Build a step, and submit it if it is long; `tokens` stand for those of the batch."""
        batch, places = grouped(batch)
        if tokens is None:
            tokens = mx.array(batch.tokens)
        elif places is not None:
            tokens = tokens[mx.array(np.argsort(places))]
        inputs = Inputs(tokens, mx.array(batch.positions), mx.array(batch.pick))
        if len(batch.adapters):
            inputs.adapters = mx.array(adapters_of(batch, self._adapters))
        if self._goes_fused(batch, value):
            return self._begin_fused(inputs, batch)
        pools, size = self._pools_of(batch), self.limits.block_size
        views = {reach: make_views(batch, pools[-1 if reach else 0][1], size, reach) for reach in self._reaches}
        pages = [make_pages(slots) for slots, _ in pools]
        runs = make_runs(batch, self.limits) if self._states else ()
        step = Step(inputs, views, pages, self._caches, runs, self._states)
        values: Values = {}
        profile = self._profile if value is self._plan.logits else None
        decoding = len(batch.tokens) == len(batch.tables)  # shapes that come again
        after = profile.timer(batch) if profile is not None else None if decoding else self._pace()
        compiled = decoding and profile is None
        inputs.turns = self._turns.at(inputs.positions, compiled=compiled)

        parts = self._parts[value.id] if profile is None else self._single
        end = max((index + 1 for index, part in enumerate(parts) if part.remembers), default=0)
        run_parts(parts[:end], step, values, compiled=compiled, after=after)
        # From here on every row is by itself: those that nobody wants end here, if there are any.
        if value.picked and len(batch.pick) < len(batch.tokens):
            pick = step.inputs.pick
            values = {key: kept[pick] for key, kept in values.items()}
            step.inputs = step.inputs.picked()
        if len(batch.pick) or not value.picked:
            run_parts(parts[end:], step, values, compiled=compiled, after=after)
        result = values.get(value.id, mx.zeros((0, value.width)))
        counts = [chosen.size for chosen in step.chosen]
        places = None if value.picked else places
        return Running(result.astype(mx.float32), highest(step.peaks), together(step.chosen), counts, places)

    def _pools_of(self, batch: Batch) -> list[tuple[Int32, Int32]]:
        """The slots and tables of a batch: of layers without a window, then of those with one where they are others."""
        own = [(batch.window_slots, batch.window_tables)] if self.limits.window_blocks and self._plan.reach else []
        return [(batch.slots, batch.tables), *own]

    def _in_blocks(self, windows: bool) -> list[LayerCache]:
        """The caches of layers with a window that have blocks of their own, or all others."""
        return [cache for cache in self._caches if self.limits.has_own_blocks(cache.sizes) == windows]

    def _goes_fused(self, batch: Batch, value: Value) -> bool:
        """Whether it is a step of decoding for `Decoding`."""
        rows = len(batch.tokens)
        if self._decoding is None or self._profile is not None or value is not self._plan.logits or rows > MOST_ROWS:
            return False
        return len(batch.pick) == rows and batch.sequence.tolist() == list(range(len(batch.tables)))

    def _begin_fused(self, inputs: Inputs, batch: Batch) -> Running:
        assert self._decoding is not None
        pages = [Pages(mx.array(slots), tables=widened(tables)) for slots, tables in self._pools_of(batch)]
        result, peaks, chosen = self._decoding.run(inputs, pages, self._caches)
        counts = [len(batch.tokens) * op.used for op in self._mixtures]
        return Running(result, peaks, chosen, counts, None)

    def _finish(self, running: Running) -> Float32:
        self._wait(running)
        out = np.asarray(running.result)  # nobody else has it
        return out if running.places is None else out[running.places]

    def _wait(self, running: Running) -> None:
        """Until a step is computed."""
        mx.eval(running.arrays)
        self._check_routers(running.peaks)
        if running.counts:
            self._expert_counts.add(running.counts, running.chosen)

    def _pace(self) -> Callable[[Part, list[mx.array]], None]:
        """Submit parts as they are built, and wait for the one before: a device always has work, memory is given back
        early, and an interrupted step ends soon.
        """
        before: list[mx.array] = []

        def after(part: Part, outputs: list[mx.array]) -> None:
            nonlocal before
            if self._interrupted:
                raise CancelledError("the step was interrupted")
            mx.async_eval(outputs)  # type: ignore[no-untyped-call]
            mx.eval(before)
            before = outputs

        return after

    def _settle(self) -> None:
        """Compute what the caches and states still have to."""
        mx.eval([cache.arrays for cache in self._caches], self._states)

    def _check_routers(self, peaks: mx.array) -> None:
        """BackendError where a mixture had a logit that is NaN, or infinite, which softmax makes NaN."""
        found = cast("list[list[float]]", peaks.tolist())
        for op, (peak,) in zip(self._mixtures, found, strict=False):
            if not peak < np.inf:
                reason = "the weights are damaged, or activations overflow"
                raise BackendError(f"the router before {op.gate} gave NaN; {reason}")

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the session is closed")
