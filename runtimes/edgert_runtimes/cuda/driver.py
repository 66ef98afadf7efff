"""A GPU through NVIDIA's driver (`cuda.bindings.driver`): the primary context, two streams, memory by address.

Calls are documented in NVIDIA's "CUDA Driver API" reference; each gives a tuple of a result and what it returns.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from cuda.bindings import driver
from edgert_models.errors import BackendError

from edgert_runtimes.base import Progress
from edgert_runtimes.cuda import compiling
from edgert_runtimes.cuda.device import Bytes, Event, Facts, Graph, Launch, Queue
from edgert_runtimes.cuda.kernels.kernel import Kernel

_ATTRIBUTE = driver.CUdevice_attribute
_PORTABLE = driver.CU_MEMHOSTALLOC_PORTABLE
_RELAXED = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


def call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """What a driver function returns; BackendError with the driver's own words if it fails."""
    result, *values = function(*arguments)
    if result != driver.CUresult.CUDA_SUCCESS:
        _, text = driver.cuGetErrorString(result)
        reason = text.decode() if text else "unknown error"
        raise BackendError(f"CUDA: {function.__name__} failed: {reason} ({result.name})")
    return values[0] if len(values) == 1 else tuple(values)


def facts_of(index: int = 0) -> Facts:
    """What the driver says of a GPU; BackendError where it cannot be used."""
    call(driver.cuInit, 0)
    if index >= call(driver.cuDeviceGetCount):
        raise BackendError("the driver finds no GPU (CUDA_VISIBLE_DEVICES may hide it)")
    device = call(driver.cuDeviceGet, index)

    def attribute(name: str) -> int:
        return int(call(driver.cuDeviceGetAttribute, getattr(_ATTRIBUTE, f"CU_DEVICE_ATTRIBUTE_{name}"), device))

    version = call(driver.cuDriverGetVersion)
    context = call(driver.cuDevicePrimaryCtxRetain, device)
    try:
        call(driver.cuCtxSetCurrent, context)
        free, memory = call(driver.cuMemGetInfo)
    finally:
        call(driver.cuDevicePrimaryCtxRelease, device)
    clock, width = attribute("MEMORY_CLOCK_RATE"), attribute("GLOBAL_MEMORY_BUS_WIDTH")
    return Facts(
        name=call(driver.cuDeviceGetName, 128, device).partition(b"\0")[0].decode(),
        capability=(attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")),
        memory=int(memory),
        free=int(free),
        multiprocessors=attribute("MULTIPROCESSOR_COUNT"),
        bandwidth=2 * clock * 1000 * width // 8,  # kHz, bits; both edges of the clock
        driver=f"{version // 1000}.{version % 1000 // 10}",
    )


class DriverDevice:
    """See Device."""

    def __init__(self, index: int = 0) -> None:
        self.facts = facts_of(index)
        self._device = call(driver.cuDeviceGet, index)
        self._context = call(driver.cuDevicePrimaryCtxRetain, self._device)
        self.bind()
        flags = int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self._streams = {queue: call(driver.cuStreamCreate, flags) for queue in Queue}
        self._functions: dict[str, Any] = {}
        self._kept = _Kept(self._device, list(self._streams.values()))
        self._finalizer = weakref.finalize(self, _give_back, self._context, self._kept)

    def bind(self) -> None:
        """See Device."""
        call(driver.cuCtxSetCurrent, self._context)

    def prepare(self, kernels: Iterable[Kernel], progress: Progress | None = None) -> int:
        """See Device."""
        missing = {kernel.name: kernel for kernel in kernels if kernel.name not in self._functions}
        images, compiled = compiling.images(missing.values(), self.facts.architecture, progress)
        for name, image in images.items():
            module = call(driver.cuModuleLoadData, image)
            self._kept.modules.append(module)
            self._functions[name] = call(driver.cuModuleGetFunction, module, name.encode())
        return compiled

    def allocate(self, size: int) -> int:
        """See Device."""
        address = call(driver.cuMemAlloc, max(size, 256))
        self._kept.memory[int(address)] = address
        call(driver.cuMemsetD8Async, address, 0, max(size, 256), self._streams[Queue.COMPUTE])
        return int(address)

    def free(self, address: int) -> None:
        """See Device."""
        call(driver.cuMemFree, self._kept.memory.pop(address))

    def pinned(self, size: int) -> Bytes:
        """See Device."""
        address = int(call(driver.cuMemHostAlloc, max(size, 1), _PORTABLE))
        self._kept.pinned.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def upload(self, target: int, source: Bytes, queue: Queue = Queue.COMPUTE) -> None:
        """See Device."""
        call(driver.cuMemcpyHtoDAsync, target, source.ctypes.data, source.nbytes, self._streams[queue])

    def download(self, target: Bytes, source: int) -> None:
        """See Device."""
        call(driver.cuMemcpyDtoHAsync, target.ctypes.data, source, target.nbytes, self._streams[Queue.COMPUTE])

    def copy(self, target: int, source: int, size: int) -> None:
        """See Device."""
        call(driver.cuMemcpyDtoDAsync, target, source, size, self._streams[Queue.COMPUTE])

    def launch(self, work: Launch) -> None:
        """See Device."""
        if work.grid:
            function, stream = self._functions[work.kernel.name], self._streams[Queue.COMPUTE]
            threads = work.kernel.threads
            call(driver.cuLaunchKernel, function, work.grid, 1, 1, threads, 1, 1, 0, stream, work.pointers, 0)

    def capture(self, work: Callable[[], None]) -> Graph:
        """See Device."""
        stream = self._streams[Queue.COMPUTE]
        call(driver.cuStreamBeginCapture, stream, _RELAXED)
        try:
            work()
        finally:
            noted = call(driver.cuStreamEndCapture, stream)
        graph = call(driver.cuGraphInstantiate, noted, 0)
        call(driver.cuGraphDestroy, noted)
        self._kept.graphs.append(graph)
        return graph

    def replay(self, graph: Graph) -> None:
        """See Device."""
        call(driver.cuGraphLaunch, graph, self._streams[Queue.COMPUTE])

    def record(self, queue: Queue = Queue.COMPUTE) -> Event:
        """See Device."""
        point = _Point()
        call(driver.cuEventRecord, point.event, self._streams[queue])
        return point

    def wait(self, event: Event, queue: Queue) -> None:
        """See Device."""
        call(driver.cuStreamWaitEvent, self._streams[queue], event.event, 0)

    def seconds(self, start: Event, end: Event) -> float:
        """See Device."""
        return float(call(driver.cuEventElapsedTime, start.event, end.event)) / 1e3

    def synchronize(self, event: Event | None = None) -> None:
        """See Device."""
        if event is not None:
            call(driver.cuEventSynchronize, event.event)
            return
        for stream in self._streams.values():
            call(driver.cuStreamSynchronize, stream)

    def close(self) -> None:
        """See Device."""
        self._functions = {}
        self._finalizer()


class _Point:
    """An event that goes when nobody refers to it: the driver waits for those that use it."""

    def __init__(self) -> None:
        self.event = call(driver.cuEventCreate, 0)
        weakref.finalize(self, driver.cuEventDestroy, self.event).atexit = False


class _Kept:
    """What the device has to give back."""

    def __init__(self, device: Any, streams: list[Any]) -> None:
        self.device = device
        self.streams = streams
        self.modules: list[Any] = []
        self.graphs: list[Any] = []
        self.pinned: list[int] = []
        self.memory: dict[int, Any] = {}


def _give_back(context: Any, kept: _Kept) -> None:
    """Results do not matter: after an error on the GPU every call fails, and the context's end frees all the same."""
    driver.cuCtxSetCurrent(context)
    for stream in kept.streams:
        driver.cuStreamSynchronize(stream)
    for graph in kept.graphs:
        driver.cuGraphExecDestroy(graph)
    for module in kept.modules:
        driver.cuModuleUnload(module)
    for address in kept.memory.values():
        driver.cuMemFree(address)
    for pinned in kept.pinned:
        driver.cuMemFreeHost(pinned)
    for stream in kept.streams:
        driver.cuStreamDestroy(stream)
    driver.cuDevicePrimaryCtxRelease(kept.device)
