"""The CPU backend: a plan lowered to records, which persistent threads run inside compiled kernels."""

from __future__ import annotations

import platform
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from edgert_models import ops
from edgert_models.errors import (
    BackendError,
    CancelledError,
    EdgertError,
    RequestError,
)
from edgert_models.graph import Plan
from edgert_quant import jit
from edgert_quant.blocks import BlockType
from edgert_quant.jit.helpers import prepare_together
from numpy.typing import NDArray

from edgert_runtimes.base import Batch, Float32, Limits, LoadReport, OpTime, Probe, Progress, WeightProvider
from edgert_runtimes.batches import adapter_count, adapters_of, check_windows, runs_of
from edgert_runtimes.cpu import compiling
from edgert_runtimes.cpu import program as linking
from edgert_runtimes.cpu import weights as loading
from edgert_runtimes.cpu.attention import CACHE_SLACK, block_bytes
from edgert_runtimes.cpu.compiling import BASE_KERNELS, all_kernels
from edgert_runtimes.cpu.cores import core_count
from edgert_runtimes.cpu.executor import Executor
from edgert_runtimes.cpu.experts import CpuExperts, ExpertLowering, experts_plan
from edgert_runtimes.cpu.formats import host_isa
from edgert_runtimes.cpu.formats.isa import ISAS, VARIABLE, forced_isa, why_not
from edgert_runtimes.cpu.kernels import checks, table
from edgert_runtimes.cpu.lower import lower
from edgert_runtimes.cpu.profile import Profile
from edgert_runtimes.experts import expert_counts
from edgert_runtimes.kv_types import check_kv_type
from edgert_runtimes.limits import check_limits
from edgert_runtimes.memory import aligned, allocate, available_memory, check_memory
from edgert_runtimes.storing import check_blocks, check_rows, gather, scatter
from edgert_runtimes.weights import check_weights

INPUTS = {
    "tokens": table.TOKENS,
    "positions": table.POSITIONS,
    "sequence": table.SEQUENCE,
    "slots": table.SLOTS,
    "tables": table.BLOCK_TABLES,
    "window_slots": table.WINDOW_SLOTS,
    "window_tables": table.WINDOW_TABLES,
    "pick": table.PICK,
    "runs": table.RUNS,
    "adapters": table.ADAPTERS,
}
"""The arrays of a batch, and what is found from them; where the state has their addresses."""


class CpuBackend:
    """Any CPU that LLVM compiles for."""

    name = "cpu"

    def probe(self) -> Probe:
        """Available wherever llvmlite runs; the details name the CPU, and of every instruction set whether it is in
        use, available, or what the CPU lacks for it.
        """
        try:
            target = jit.host()
        except (ImportError, OSError, RuntimeError) as error:
            return Probe(False, reason=str(error))
        used, reason, forced = "", "", forced_isa()
        try:
            used = host_isa().name
        except EdgertError as error:
            reason = str(error)
        states = {isa.name: why_not(isa) or ("in use" if isa.name == used else "available") for isa in ISAS}
        details: dict[str, str | Mapping[str, str]] = {
            "cpu": _cpu_name(),
            "model": target.cpu,
            "instruction_set": used or "none",
            "chosen_by": f"{VARIABLE}={forced}" if forced else "being the best that this CPU runs",
            "instruction_sets": states,
            "features": " ".join(word[1:] for word in target.features if word.startswith("+")),
            "cores": str(core_count()),
        }
        return Probe(not reason, reason, details)

    def warmup(self, progress: Progress | None = None) -> int:
        """See Backend: the kernels of every op and block type."""
        return _prepare(all_kernels(), progress)

    def load(self, plan: Plan, weights: WeightProvider, limits: Limits, progress: Progress | None = None) -> CpuSession:
        """See Backend. Matrices are mapped where the provider can; steps then check that they are whole."""
        start = time.perf_counter()
        check_weights(plan, weights)
        check_limits(limits)
        check_kv_type(limits.kv_type, plan)
        threads = limits.threads or core_count()
        layouts = loading.plan_layouts(plan, weights)
        program = lower(plan, layouts, limits)
        sizes = {
            "weights": sum(layout.nbytes for layout in layouts.values() if not layout.mapped),
            "cache": program.cache_bytes + program.state_bytes,
            "workspace": program.workspace_bytes + threads * program.scratch_bytes,
        }
        check_memory(sizes, available_memory() if limits.memory is None else limits.memory)
        _prepare([*BASE_KERNELS, *program.kernels()], progress)
        loaded = _load(layouts, weights, progress)
        report = LoadReport(
            backend=self.name,
            threads=threads,
            instruction_set=host_isa().name,
            weights=tuple(layout.report() for layout in layouts.values()),
            cache_bytes=sizes["cache"],
            workspace_bytes=sizes["workspace"],
            seconds=time.perf_counter() - start,
        )
        return CpuSession(plan, program, loaded, limits, report, weights)

    def load_experts(
        self, plan: Plan, weights: WeightProvider, *, threads: int | None = None, progress: Progress | None = None
    ) -> CpuExperts:
        """See ExpertBackend."""
        alone, places = experts_plan(plan)
        check_weights(alone, weights)
        layouts = loading.plan_layouts(alone, weights)
        lowered = ExpertLowering(alone, layouts)
        _prepare([*BASE_KERNELS, *lowered.run().kernels()], progress)
        return CpuExperts(lowered, places, _load(layouts, weights, progress), threads or core_count())


class CpuSession:
    """A loaded model with its cache, workspace and threads."""

    def __init__(
        self,
        plan: Plan,
        program: linking.Program,
        loaded: Mapping[str, loading.Loaded],
        limits: Limits,
        report: LoadReport,
        weights: WeightProvider,
    ) -> None:
        self.limits = limits
        self.report = report
        self._weights = weights
        self._mapped = report.mapped_bytes > 0
        self._plan = plan
        self._program = program
        self._cache = allocate(program.cache_bytes + CACHE_SLACK)
        self._states = allocate(program.state_bytes)
        self._workspace = allocate(program.workspace_bytes)
        self._loaded = loaded
        self._expert_load = expert_counts(plan)
        self._adapters = adapter_count(plan)
        areas: dict[str, NDArray[Any]] = {
            "cache": self._cache,
            "state": self._states,
            "workspace": self._workspace,
            "loads": self._expert_load,
        }
        addresses = {name: area.ctypes.data for name, area in areas.items()}
        targets = {plan.logits.id, plan.hidden.id}
        self._linked = linking.link(program, addresses, loaded, targets)
        self._executor = Executor(report.threads, self._linked.words, program.scratch_bytes)
        self._inputs = {name: np.zeros(size, np.int32) for name, size in _input_sizes(limits).items()}
        for name, number in INPUTS.items():
            self._executor.state[number] = self._inputs[name].ctypes.data
        self._lock = threading.Lock()
        self._closed = False
        self._profile: Profile | None = None
        # Threads must be gone before the memory is: also when a session is forgotten, or the interpreter ends.
        memory = (areas, self._inputs, self._linked, dict(loaded))
        self._finalizer = weakref.finalize(self, _stop, self._executor, memory)

    def step(self, batch: Batch, *, hidden: bool = False) -> Float32:
        """See Session. Calls from several threads wait for each other."""
        with self._lock:
            self._check_open()
            if self._mapped:
                self._weights.check()
            self._set_batch(batch)
            value = self._plan.hidden if hidden else self._plan.logits
            stride = self._program.strides[value.id]
            count = len(batch.pick) if value.picked else len(batch.tokens)
            out = np.empty((count, stride), np.float32)
            self._linked.move(value.id, out.ctypes.data)
            records = self._program.ends[value.id]
            status = self._executor.run(records)
            self._linked.move(value.id, None)
            if self._profile is not None and status == 0:
                self._profile.add(batch, records)
        if status == table.INTERRUPTED:
            raise CancelledError("the step was interrupted")
        if status:
            self._raise_router_error(status - 1)
        return out if stride == value.width else np.ascontiguousarray(out[:, : value.width])

    def interrupt(self) -> None:
        """See Session."""
        self._executor.state[table.STATUS] = table.INTERRUPTED

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See Session; RequestError for a block that does not exist."""
        with self._lock:
            self._check_open()
            check_blocks(chain.from_iterable(pairs), self.limits)
            for blocks in self._block_parts(windows=False):
                for source, target in pairs:
                    blocks[target] = blocks[source]

    def read_blocks(self, blocks: Sequence[int], *, windows: bool = False) -> NDArray[np.uint8]:
        """See StoringSession."""
        with self._lock:
            self._check_open()
            check_blocks(blocks, self.limits, windows=windows)
            return gather(self._block_parts(windows), blocks)

    def write_blocks(self, blocks: Sequence[int], content: NDArray[np.uint8], *, windows: bool = False) -> None:
        """See StoringSession."""
        with self._lock:
            self._check_open()
            check_blocks(blocks, self.limits, windows=windows)
            scatter(self._block_parts(windows), blocks, content)

    def read_states(self, slots: Sequence[int]) -> NDArray[np.uint8]:
        """See StoringSession."""
        with self._lock:
            self._check_open()
            check_rows(slots, self.limits.states, "slot")
            return gather(self._state_parts(), slots)

    def write_states(self, slots: Sequence[int], content: NDArray[np.uint8]) -> None:
        """See StoringSession."""
        with self._lock:
            self._check_open()
            check_rows(slots, self.limits.states, "slot")
            scatter(self._state_parts(), slots, content)

    def profile(self, on: bool) -> list[OpTime]:
        """See Session."""
        with self._lock:
            self._check_open()
            found = [] if self._profile is None else self._profile.result()
            self._profile = Profile(self._plan, self._program, self._linked, self._loaded, self.limits) if on else None
            self._executor.state[table.PROFILE] = self._profile.times.ctypes.data if self._profile is not None else 0
        return found

    def expert_load(self) -> NDArray[np.int64]:
        """See CountingSession."""
        return self._expert_load.copy()

    def close(self) -> None:
        """See Session. Waits for a step that runs."""
        with self._lock:
            self._closed = True
            self._finalizer()
            empty = np.empty(0, np.uint8)
            self._cache = self._states = self._workspace = empty
            self._loaded = {}
            self._linked = linking.Linked(np.empty((0, 0), np.int64), [], {})

    def _block_parts(self, windows: bool) -> list[NDArray[np.uint8]]:
        """Keys and values, [blocks, bytes of one], of each layer with a window that has blocks of its own, or of all
        others.
        """
        caches, limits = self._plan.caches, self.limits
        sizes = [(cache, size) for cache in caches for size in block_bytes(cache, limits) if size]
        areas = _rows(self._cache, [(limits.blocks_of(cache), cache.kv_heads * size) for cache, size in sizes])
        return [area for area, (cache, _) in zip(areas, sizes, strict=True) if limits.has_own_blocks(cache) == windows]

    def _state_parts(self) -> list[NDArray[np.uint8]]:
        """Each recurrent state, [slots, bytes of one]."""
        return _rows(self._states, [(self.limits.states, 4 * state.size) for state in self._plan.states])

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the session is closed")
        self._executor.check_process()

    def _set_batch(self, batch: Batch) -> None:
        """Copy the batch to where the state says it is, and check it."""
        limits = self.limits
        count, picked, shape = len(batch.tokens), len(batch.pick), batch.tables.shape
        if count > limits.rows:
            raise RequestError(f"the batch has {count} rows, the session takes {limits.rows}", parameter="tokens")
        for name in ("tokens", "positions", "sequence", "slots"):
            array = getattr(batch, name)
            if array.shape != (count,):
                raise RequestError(f"{name} has shape {array.shape}, tokens has {count} rows", parameter=name)
            self._inputs[name][:count] = array
        if len(shape) != 2 or shape[0] > limits.sequences:
            raise RequestError(f"tables has shape {shape}; at most {limits.sequences} sequences fit")
        if batch.pick.ndim != 1 or picked > limits.rows:
            raise RequestError(f"pick has shape {batch.pick.shape}; at most {limits.rows} rows fit", parameter="pick")
        self._inputs["pick"][:picked] = batch.pick
        width = min(shape[1], limits.table_width)  # positions stay within the context
        self._inputs["tables"][: shape[0] * width] = batch.tables[:, :width].ravel()
        state = self._executor.state
        state[table.ROWS], state[table.PICKED], state[table.TABLE_WIDTH] = count, picked, width
        sizes = (self._plan.spec.vocabulary, limits.context, limits.blocks, limits.block_size, shape[0])
        fault = checks.check_batch(self._executor.address, *sizes)
        if fault:
            name = checks.FAULTS[(fault & 255) - 1]
            index = fault >> 8
            found = getattr(batch, name)[index]
            raise RequestError(f"{name}[{index}] is out of range: {found}", parameter=name)
        if limits.window_blocks and self._plan.reach:
            check_windows(batch, limits, self._plan)
            self._inputs["window_slots"][:count] = batch.window_slots
            self._inputs["window_tables"][: shape[0] * width] = batch.window_tables[:, :width].ravel()
        if self._adapters:
            self._inputs["adapters"][:count] = adapters_of(batch, self._adapters)
        if self._plan.states:
            self._inputs["runs"][: 4 * shape[0]] = runs_of(batch, limits).ravel()
            state[table.SEQUENCES] = shape[0]

    def _raise_router_error(self, index: int) -> None:
        op = self._plan.ops[index]
        assert isinstance(op, ops.Moe)
        raise BackendError(f"the router before {op.gate} gave NaN; the weights are damaged, or activations overflow")


def _rows(area: NDArray[np.uint8], shapes: Iterable[tuple[int, int]]) -> list[NDArray[np.uint8]]:
    """Views [count, size] of areas that lie one after another."""
    found, start = [], 0
    for count, size in shapes:
        found.append(area[start : start + count * size].reshape(count, size))
        start += aligned(count * size)
    return found


def _stop(running: Executor, memory: object) -> None:
    """Stop the threads; `memory` is what they may still touch until then."""
    running.close()


def _prepare(kernels: Iterable[jit.Kernel], progress: Progress | None) -> int:
    """Load kernels, and compile what is missing on all cores."""
    told = None if progress is None else lambda done, total, name: progress("compile", done, total)
    return prepare_together(kernels, compiling.__name__, core_count(), told)


def _load(
    layouts: Mapping[str, loading.Layout], weights: WeightProvider, progress: Progress | None
) -> dict[str, loading.Loaded]:
    total = sum(_stored_bytes(layout.stored.type, layout.stored.shape) for layout in layouts.values())
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress("load", done, total)

    return loading.load_weights(layouts, weights, advance)


def _stored_bytes(block_type: BlockType, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[:-1], dtype=np.int64)) * block_type.row_bytes(shape[-1])


def _input_sizes(limits: Limits) -> dict[str, int]:
    """Numbers that each array of a batch has at most."""
    tables = dict.fromkeys(("tables", "window_tables"), limits.sequences * limits.table_width)
    return dict.fromkeys(INPUTS, limits.rows) | tables | {"runs": 4 * limits.sequences}


def _cpu_name() -> str:
    """The CPU as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
