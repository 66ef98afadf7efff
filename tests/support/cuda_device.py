"""A GPU made of the host: memory is the host's, kernels run through the shim, one after the other.

What only a GPU would notice is noticed here too where it can be: memory has guards before and behind it, graphs note
work without doing it, and copies of one queue wait for the other only where they were told to (see `lagging`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
from edgert_models.errors import BackendError
from edgert_runtimes.base import Progress
from edgert_runtimes.cuda.backend import CudaBackend
from edgert_runtimes.cuda.device import Bytes, Facts, Launch, Queue
from edgert_runtimes.cuda.kernels.kernel import Kernel
from edgert_runtimes.registry import get_backend

from tests.support.cuda_host import HostKernels

GUARD = 4096
PATTERN = 0xA5
_LIBRARIES: dict[str, HostKernels] = {}


class HostDevice:
    """See Device. `free` is what it says it has of memory."""

    def __init__(self, free: int = 1 << 34) -> None:
        self.facts = Facts(
            name="host",
            capability=(8, 9),
            memory=1 << 34,
            free=free,
            multiprocessors=4,
            bandwidth=10**11,
            driver="none",
        )
        self.launches: list[str] = []
        self.replays = 0
        self.captures = 0
        self.closed = False
        self.uploaded = self.downloaded = 0
        self._memory: dict[int, np.ndarray] = {}
        self._noting: list[Callable[[], None]] | None = None

    @property
    def held(self) -> int:
        """Bytes that are allocated."""
        return sum(len(memory) - 2 * GUARD for memory in self._memory.values())

    def bind(self) -> None:
        assert not self.closed

    def prepare(self, kernels: Iterable[Kernel], progress: Progress | None = None) -> int:
        del progress
        return len(list(kernels))  # compiled when they are first launched

    def allocate(self, size: int) -> int:
        memory = np.full(size + 2 * GUARD + 256, PATTERN, np.uint8)
        memory = memory[-memory.ctypes.data % 256 :][: size + 2 * GUARD]
        memory[GUARD : GUARD + size] = 0
        address = memory.ctypes.data + GUARD
        self._memory[address] = memory
        return address

    def free(self, address: int) -> None:
        self._check(self._memory.pop(address))

    def pinned(self, size: int) -> Bytes:
        return np.zeros(size, np.uint8)

    def upload(self, target: int, source: Bytes, queue: Queue = Queue.COMPUTE) -> None:
        self.uploaded += source.nbytes
        self._do(lambda: self._at(target, source.nbytes).__setitem__(slice(None), source))

    def download(self, target: Bytes, source: int) -> None:
        self.downloaded += target.nbytes
        self._do(lambda: target.__setitem__(slice(None), self._at(source, target.nbytes)))

    def copy(self, target: int, source: int, size: int) -> None:
        self._do(lambda: self._at(target, size).__setitem__(slice(None), self._at(source, size)))

    def launch(self, work: Launch) -> None:
        self.launches.append(work.kernel.name)
        self._do(lambda: self.execute(work))

    def execute(self, work: Launch) -> None:
        """Run a kernel."""
        kernel = work.kernel
        if kernel.name not in _LIBRARIES:
            _LIBRARIES[kernel.name] = HostKernels([kernel])
        _LIBRARIES[kernel.name].launch_packed(kernel, work.grid, work.pointers)

    def capture(self, work: Callable[[], None]) -> list[Callable[[], None]]:
        assert self._noting is None
        self._noting = noted = []
        try:
            work()
        finally:
            self._noting = None
        self.captures += 1
        return noted

    def replay(self, graph: list[Callable[[], None]]) -> None:
        self.replays += 1
        for work in graph:
            work()

    def record(self, queue: Queue = Queue.COMPUTE) -> float:
        return time.perf_counter()

    def wait(self, event: float, queue: Queue) -> None:
        pass

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def synchronize(self, event: float | None = None) -> None:
        if self._noting is not None:
            raise BackendError("CUDA: nothing can be waited for while a graph is noted")

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for memory in self._memory.values():
                self._check(memory)
            self._memory.clear()

    def _do(self, work: Callable[[], None]) -> None:
        assert not self.closed
        if self._noting is not None:
            self._noting.append(work)
        else:
            work()

    def _at(self, address: int, size: int) -> np.ndarray:
        """Memory that was allocated, and has so many bytes from there on."""
        for start, memory in self._memory.items():
            if start <= address < start + len(memory) - 2 * GUARD:
                place = GUARD + address - start
                assert place + size <= len(memory) - GUARD, "a copy goes beyond its memory"
                return memory[place : place + size]
        raise AssertionError(f"{address:#x} is not in memory of the device")

    def _check(self, memory: np.ndarray) -> None:
        assert (memory[:GUARD] == PATTERN).all(), "something wrote before its memory"
        assert (memory[-GUARD:] == PATTERN).all(), "something wrote behind its memory"


class HostCudaBackend(CudaBackend):
    """The CUDA backend on such a device, kept in `devices`."""

    def __init__(self, make: Callable[[], HostDevice] = HostDevice) -> None:
        self.devices: list[HostDevice] = []

        def opened() -> HostDevice:
            self.devices.append(make())
            return self.devices[-1]

        super().__init__(lambda: get_backend("cpu"), opened)  # type: ignore[arg-type, return-value]
