"""What the backend needs of a GPU. `driver.DriverDevice` is one; tests have others that need no GPU.

Memory is an address. Work is put into one of two queues and done in the order of the queue: `COMPUTE` has the
launches, `COPY` brings experts in beside them. Nothing but `synchronize` waits for it. Host memory that takes part
must stay as it is until the work is done, and should be `pinned`: the driver copies what is not through memory of its
own, and waits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
from edgert_models import ops
from numpy.typing import NDArray

from edgert_runtimes.base import Progress
from edgert_runtimes.cuda.kernels.kernel import Kernel

Bytes = NDArray[np.uint8]


class Queue(Enum):
    """Where work goes."""

    COMPUTE = "compute"
    COPY = "copy"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A GPU: name, compute capability (major, minor), bytes of memory and those free now, multiprocessors, and the most
    bytes a second its memory can give (0 where the driver does not say).
    """

    name: str
    capability: tuple[int, int]
    memory: int
    free: int
    multiprocessors: int
    bandwidth: int
    driver: str

    @property
    def architecture(self) -> str:
        """As compilers call it."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


@dataclass(frozen=True)
class Cost:
    """What a launch reads and multiplies, for profiles: `bytes` and multiply-adds that do not depend on the batch, of
    weights `expert_bytes` for every expert that some row chose, and the attention it does, if it does. `weights` names
    them.
    """

    weights: str = ""
    bytes: int = 0
    products: int = 0
    expert_bytes: int = 0
    attend: ops.Attend | None = None


class Launch:
    """A kernel with its arguments: `grid` blocks, `pointers` the address of an array of addresses of arguments, as both
    the driver and the tests' shim take it.
    """

    def __init__(self, kernel: Kernel, cost: Cost = Cost(), /, **arguments: int | float) -> None:
        self.kernel = kernel
        self.cost = cost
        self.grid = kernel.grid(arguments)
        self._packed = kernel.pack(arguments)
        self._pointers = (ctypes.c_void_p * len(self._packed))(*map(ctypes.addressof, self._packed))
        self.pointers = ctypes.addressof(self._pointers)


Event = Any
"""A point in a queue."""
Graph = Any
"""Work that was noted once, to be repeated as a whole."""


class Device(Protocol):
    """One GPU. One thread at a time may call it; each must call `bind` before it does."""

    facts: Facts

    def bind(self) -> None:
        """Make the calling thread one that uses this GPU."""

    def prepare(self, kernels: Iterable[Kernel], progress: Progress | None = None) -> int:
        """Load kernels, and compile those that are in no cache; how many that were."""

    def allocate(self, size: int) -> int:
        """The address of `size` bytes, aligned to 256, all zero."""

    def free(self, address: int) -> None:
        """Give it back."""

    def pinned(self, size: int) -> Bytes:
        """Host memory that the GPU can copy from and to on its own; it is given back with the device."""

    def upload(self, target: int, source: Bytes, queue: Queue = Queue.COMPUTE) -> None:
        """Copy host memory to the GPU."""

    def download(self, target: Bytes, source: int) -> None:
        """Copy from the GPU to host memory."""

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy within the GPU; the stretches do not overlap."""

    def launch(self, work: Launch) -> None:
        """Run a kernel; one of no blocks does nothing."""

    def capture(self, work: Callable[[], None]) -> Graph:
        """Note what `work` puts into COMPUTE, without doing it."""

    def replay(self, graph: Graph) -> None:
        """Do what was noted."""

    def record(self, queue: Queue = Queue.COMPUTE) -> Event:
        """A point in a queue: done once all before it is."""

    def wait(self, event: Event, queue: Queue) -> None:
        """Let a queue go on only after a point in another."""

    def seconds(self, start: Event, end: Event) -> float:
        """The time between two points that are done."""

    def synchronize(self, event: Event | None = None) -> None:
        """Wait until a point is done, or everything; BackendError for what went wrong on the GPU."""

    def close(self) -> None:
        """Give everything back; calling it again does nothing."""


class Arrays:
    """Named stretches of one piece of memory, each at a multiple of 256 bytes."""

    def __init__(self, sizes: Sequence[tuple[str, int]]) -> None:
        self.offsets: dict[str, int] = {}
        self.size = 0
        for name, size in sizes:
            self.offsets[name] = self.size
            self.size += -(-size // 256) * 256
