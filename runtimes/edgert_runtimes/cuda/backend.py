"""The CUDA backend: a plan lowered to launches of kernels that NVRTC compiled for the GPU at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from edgert_models.errors import BackendError
from edgert_models.graph import Plan

from edgert_runtimes.base import Limits, LoadReport, Probe, Progress, WeightProvider
from edgert_runtimes.cuda import probing
from edgert_runtimes.cuda.device import Device, Facts
from edgert_runtimes.cuda.inputs import Inputs
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.lower import lower
from edgert_runtimes.cuda.offload.host import HostWeights
from edgert_runtimes.cuda.offload.pools import Pool, plan_pools, tensors_of
from edgert_runtimes.cuda.offload.runner import Offload
from edgert_runtimes.cuda.program import Memory, Program, Shape
from edgert_runtimes.cuda.session import CudaSession
from edgert_runtimes.cuda.warming import common_kernels
from edgert_runtimes.cuda.weights import SLACK, Tensor, Uploader, plan_tensors, stored_bytes
from edgert_runtimes.experts import ExpertBackend, expert_counts, mixtures_of
from edgert_runtimes.kv_types import check_kv_type
from edgert_runtimes.limits import check_limits
from edgert_runtimes.memory import aligned, check_memory
from edgert_runtimes.weights import check_weights

SESSION_KERNELS = (catalogue.argmax(), catalogue.sample(), catalogue.copy_blocks())
"""What sessions launch beside works."""

RESERVE = 384 << 20
"""Bytes of the GPU's free memory that are left to the driver, for code and its own tables, where no limit is given."""


def open_gpu() -> Device:
    """The first GPU."""
    from edgert_runtimes.cuda.driver import DriverDevice

    return DriverDevice()


@dataclass(frozen=True)
class _Layout:
    """What goes where: a program, the tensors, the pools of experts (none where all fit), and the sizes of it all."""

    program: Program
    tensors: Mapping[str, Tensor]
    pools: list[Pool]
    sizes: Mapping[str, int]


class CudaBackend:
    """NVIDIA GPUs from compute capability 7.5 on. `helper` makes the backend that computes experts which do not fit."""

    name = "cuda"

    def __init__(self, helper: Callable[[], ExpertBackend], device: Callable[[], Device] = open_gpu) -> None:
        self._helper = helper
        self._open = device

    def probe(self) -> Probe:
        """See Backend."""
        return probing.probe()

    def warmup(self, progress: Progress | None = None) -> int:
        """See Backend: kernels of all types, and attention of the usual sizes of heads."""
        device = self._open()
        try:
            return device.prepare(common_kernels(), progress)
        finally:
            device.close()

    def load(
        self, plan: Plan, weights: WeightProvider, limits: Limits, progress: Progress | None = None
    ) -> CudaSession:
        """See Backend. `Limits.memory` is the GPU's; `threads` are of the host, for experts that it computes."""
        start = time.perf_counter()
        check_weights(plan, weights)
        check_limits(limits)
        check_kv_type(limits.kv_type, plan)
        device = self._open()
        try:
            if reason := probing.unsuitable(device.facts):
                raise BackendError(f"backend '{self.name}' cannot run here: {reason}")
            layout = _plan(plan, weights, limits, device.facts)
            device.prepare([*layout.program.kernels(_shapes(limits)), *SESSION_KERNELS], progress)
            return self._load(plan, weights, limits, device, layout, progress, start)
        except BaseException:
            device.close()
            raise

    def _load(
        self,
        plan: Plan,
        weights: WeightProvider,
        limits: Limits,
        device: Device,
        layout: _Layout,
        progress: Progress | None,
        start: float,
    ) -> CudaSession:
        advance = _teller(progress, sum(stored_bytes(tensor.stored) for tensor in layout.tensors.values()))
        away = {
            name: layout.tensors[name]
            for pool in layout.pools
            for index in pool.mixtures
            for name in tensors_of(mixtures_of(plan)[index])
        }
        addresses = Uploader(device, weights, advance).load(layout.tensors, away)
        cache, workspace = device.allocate(layout.program.cache_bytes), device.allocate(layout.program.workspace_bytes)
        offload = self._offload(plan, weights, limits, device, layout.pools, away, advance) if away else None
        constants = {}
        for number, values in layout.program.constants.items():
            constants[number] = device.allocate(values.nbytes)
            staged = device.pinned(values.nbytes)
            staged[:] = values.view("u1")
            device.upload(constants[number], staged)
        inputs = Inputs(device, limits)
        device.synchronize()
        everything = addresses | (offload.weights if offload is not None else {})
        report = LoadReport(
            backend=self.name,
            threads=limits.threads or 1,
            instruction_set=device.facts.architecture,
            weights=tuple(tensor.report() for tensor in layout.tensors.values()),
            cache_bytes=layout.sizes["cache"],
            workspace_bytes=layout.sizes["workspace"],
            seconds=time.perf_counter() - start,
        )
        states = device.allocate(layout.program.state_bytes) if layout.program.state_bytes else 0
        counts = expert_counts(plan).nbytes
        loads = device.allocate(counts) if counts else 0
        memory = Memory(workspace, cache, inputs.addresses, everything, constants, states, loads)
        return CudaSession(plan, layout.program, device, memory, inputs, limits, report, weights, offload)

    def _offload(
        self,
        plan: Plan,
        weights: WeightProvider,
        limits: Limits,
        device: Device,
        pools: list[Pool],
        away: Mapping[str, Tensor],
        advance: Callable[[int], None],
    ) -> Offload:
        on_host = HostWeights(device, weights, away, advance)
        host = self._helper().load_experts(plan, on_host, threads=limits.threads)
        return Offload(device, plan, pools, on_host, host, limits)


def _plan(plan: Plan, weights: WeightProvider, limits: Limits, facts: Facts) -> _Layout:
    """Everything on the GPU if it fits; else pools of experts that share what the rest leaves. Errors before any memory
    is taken: see `Backend.load`.
    """
    allowed = facts.free - RESERVE if limits.memory is None else limits.memory
    tensors = plan_tensors(plan, weights)
    types = {name: tensor.type for name, tensor in tensors.items()}

    def sizes(program: Program, held: int) -> dict[str, int]:
        small = sum(values.nbytes for values in program.constants.values()) + 64 * limits.rows + 8 * limits.blocks
        small += 4 * limits.sequences * plan.logits.width
        other = program.workspace_bytes + Inputs.bytes(limits) + small + expert_counts(plan).nbytes
        return {"weights": held, "cache": program.cache_bytes + program.state_bytes, "workspace": other}

    program = lower(plan, types, {}, limits, facts.multiprocessors)
    whole = sizes(program, sum(aligned(tensor.nbytes) + SLACK for tensor in tensors.values()))
    mixtures = mixtures_of(plan)
    if sum(whole.values()) <= allowed or not mixtures:
        check_memory(whole, allowed, "the GPU's memory")
        return _Layout(program, tensors, [], whole)
    names = {name for op in mixtures.values() for name in tensors_of(op)}
    fixed = sum(aligned(tensor.nbytes) + SLACK for name, tensor in tensors.items() if name not in names)
    most = {index: len(mixtures) * op.experts for index, op in mixtures.items()}  # the most slots that a pool can have
    least = sizes(lower(plan, types, most, limits, facts.multiprocessors), fixed)
    least["workspace"] += SLACK * len(names)
    pools = plan_pools(plan, tensors, least, allowed)
    slots = {index: pool.slots for pool in pools for index in pool.mixtures}
    for index in slots:
        for name in tensors_of(mixtures[index]):
            tensors[name] = replace(tensors[name], slots=slots[index])
    program = lower(plan, types, slots, limits, facts.multiprocessors)
    taken = sizes(program, fixed) | {"experts": sum(pool.bytes for pool in pools)}
    check_memory(taken, allowed, "the GPU's memory")
    return _Layout(program, tensors, pools, taken)


def _shapes(limits: Limits) -> list[Shape]:
    """One for every choice of kernels that steps can make."""
    rows = [count for count in (*catalogue.COLUMNS, max(catalogue.COLUMNS) + 1) if count <= limits.rows]
    shapes = [Shape(count, count, splits=splits, runs=1) for count in rows for splits in (1, 2)]
    return [*shapes, *(Shape(count, count, tiles=1, runs=1) for count in rows)]


def _teller(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Adds up bytes and tells the sum."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress("load", done, total)

    return advance
