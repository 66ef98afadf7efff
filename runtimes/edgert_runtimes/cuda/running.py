"""Works on the device: launched one by one, or noted as graphs that are repeated; the host's part in mixtures
between.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from edgert_models.errors import CancelledError

from edgert_runtimes.base import Batch
from edgert_runtimes.cuda.device import Device, Graph, Launch
from edgert_runtimes.cuda.offload.runner import Offload
from edgert_runtimes.cuda.profile import Profile
from edgert_runtimes.cuda.program import Memory, Shape, Work

KEPT = 64
"""Shapes whose launches, and whose graphs, are kept."""

T = TypeVar("T")


class Runner:
    """Runs works of one program. `interrupted` ends those that are launched one by one."""

    def __init__(self, device: Device, memory: Memory, offload: Offload | None) -> None:
        self.interrupted = False
        self._device = device
        self._memory = memory
        self._offload = offload
        self._launches: OrderedDict[tuple[Shape, int, int], list[list[Launch]]] = OrderedDict()
        self._graphs: OrderedDict[tuple[Shape, int], list[Graph]] = OrderedDict()

    def run(self, works: Sequence[Work], shape: Shape, batch: Batch, profile: Profile | None = None) -> None:
        """Launch works for a batch. CancelledError where `interrupted` was set."""
        if not works:
            return
        key = (shape, works[0].op, len(works))
        launches = _kept(self._launches, key, lambda: [list(work.launches(shape, self._memory)) for work in works])
        for work, own in zip(works, launches, strict=True):
            if self.interrupted:
                self._device.synchronize()
                raise CancelledError("the step was interrupted")
            self._take_part(work, len(batch.tokens), shape.rows)
            if profile is not None:
                profile.launch(work, own, batch, self._memory.workspace)
                continue
            for launch in own:
                self._device.launch(launch)

    def repeat(self, works: Sequence[Work], shape: Shape, batch: Batch) -> None:
        """The same from graphs, of which there is one for each stretch of works that the host has no part in."""
        parts = list(_parts(works))
        graphs = _kept(self._graphs, (shape, len(works)), lambda: [self._note(part, shape) for part in parts])
        for part, graph in zip(parts, graphs, strict=True):
            self._take_part(part[0], len(batch.tokens), shape.rows)
            self._device.replay(graph)

    def _note(self, works: Sequence[Work], shape: Shape) -> Graph:
        def launch() -> None:
            for work in works:
                for each in work.launches(shape, self._memory):
                    self._device.launch(each)

        return self._device.capture(launch)

    def _take_part(self, work: Work, rows: int, padded: int) -> None:
        if self._offload is None:
            return
        if work.before is not None:
            self._offload.choose(work.before, self._memory.workspace, rows, padded)
        if work.needs is not None:
            self._offload.finish(work.needs, self._memory.workspace, padded)


def _parts(works: Sequence[Work]) -> Iterator[Sequence[Work]]:
    """Stretches of works, each beginning where the host takes part."""
    start = 0
    for index, work in enumerate(works):
        if index > start and (work.before is not None or work.needs is not None):
            yield works[start:index]
            start = index
    yield works[start:]


K = TypeVar("K")


def _kept(store: OrderedDict[K, T], key: K, make: Callable[[], T]) -> T:
    """What is kept for a key, made if need be; what was not used for longest goes."""
    if key not in store:
        store[key] = make()
        if len(store) > KEPT:
            store.popitem(last=False)
    store.move_to_end(key)
    return store[key]
