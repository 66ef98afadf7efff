"""What the backend needs of a GPU. `driver.DriverDevice` is one; tests have others that need no GPU.

Memory is an address. Work is put into one of two queues and done in the order of the queue: `COMPUTE` has the launches,
`COPY` brings experts in beside them. Nothing but `synchronize` waits for it. Host memory that takes part must be
`pinned`, and stay as it is until the work is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgert_runtimes.base import Progress

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


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel of the catalogue on a grid of blocks of threads, with `shared` bytes of dynamic shared memory."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    shared: int
    arguments: tuple[int | float, ...]


Event = Any
"""A point in a queue."""
Graph = Any
"""Work that was noted once, to be repeated as a whole."""


class Device(Protocol):
    """One GPU. One thread at a time may call it; each must call `bind` before it does."""

    facts: Facts

    def bind(self) -> None:
        """Make the calling thread one that uses this GPU."""

    def prepare(self, kernels: Iterable[str], progress: Progress | None = None) -> int:
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
        """Run a kernel."""

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
