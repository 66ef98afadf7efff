"""Who computes an expert that is not in the GPU's memory: the host, where its matrices are, or the GPU once they have
been copied to it. Whichever is done sooner, given what each has to do already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LATENCY = 10e-6
"""Seconds that a copy takes before its first byte."""

SMOOTHING = 0.1
"""How much the latest measurement counts."""


@dataclass(frozen=True, slots=True)
class Task:
    """An expert that rows of this step have chosen: bytes of its matrices, and multiply-adds for all those rows."""

    expert: int
    bytes: int
    products: int


@dataclass
class Rates:
    """What has been measured. The host reads matrices once and multiplies: it takes as long as the slower of both."""

    copied_bytes: float = 10e9
    """A second, from the host's memory to the GPU's."""
    host_bytes: float = 20e9
    """A second, of matrices that the host reads."""
    host_products: float = 100e9
    """A second, of multiply-adds that the host does."""

    def copying(self, task: Task) -> float:
        """Seconds to bring an expert to the GPU."""
        return LATENCY + task.bytes / self.copied_bytes

    def on_host(self, task: Task) -> float:
        """Seconds for the host."""
        return max(task.bytes / self.host_bytes, task.products / self.host_products)

    def copied(self, size: int, seconds: float, weight: float = SMOOTHING) -> None:
        """A copy of so many bytes was measured; `weight` 1 forgets what was before."""
        if seconds > LATENCY:
            self.copied_bytes += weight * (size / (seconds - LATENCY) - self.copied_bytes)

    def computed(self, tasks: Sequence[Task], seconds: float, weight: float = SMOOTHING) -> None:
        """The host was measured: both of its rates move by what the estimate was wrong."""
        expected = sum(self.on_host(task) for task in tasks)
        if expected > 0 and seconds > 0:
            factor = (expected / seconds) ** weight
            self.host_bytes *= factor
            self.host_products *= factor


def divide(tasks: Sequence[Task], rates: Rates, room: int) -> tuple[list[Task], list[Task]]:
    """(to copy, for the host): at most `room` are copied. Those with most work come first: more rows make the host
    slower, and no copy longer.
    """
    copied: list[Task] = []
    host: list[Task] = []
    copy_ends = host_ends = 0.0
    for task in sorted(tasks, key=lambda task: -task.products):
        copy, compute = copy_ends + rates.copying(task), host_ends + rates.on_host(task)
        if copy < compute and len(copied) < room:
            copied.append(task)
            copy_ends = copy
        else:
            host.append(task)
            host_ends = compute
    return copied, host
