"""Who has which slot of recurrent states: those of running requests, and checkpoints for prefix reuse. Integers only.

A step reads a request's states from one slot and writes them to another, so a request that is being computed has two.
What is left keeps checkpoints: the states after a full block of the cache, found by the serial that `BlockPool` gives
the block. A checkpoint is a slot like any other, and a request that goes on from one reads it where it is. When slots
are short, the checkpoint that was used longest ago goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class States:
    """The slots of one request: what it continues from, what the next step writes, and what a step that is begun ahead
    of the one after writes. `kept` is the serial of its latest checkpoint of an answer.
    """

    now: int | None = None
    next: int | None = None
    ahead: int | None = None
    kept: int | None = None


class StatePool:
    """The slots of one session; of none for models without recurrent states."""

    def __init__(self, slots: int) -> None:
        self.size = slots
        self._free = list(range(slots - 1, -1, -1))
        self._holders = [0] * slots
        # Serial of a block → slot, least recently used first; and the names of the blocks that have any.
        self._checkpoints: OrderedDict[int, int] = OrderedDict()
        self._names: dict[int, bytes] = {}
        self.evicted: list[tuple[int, bytes]] = []
        """Slots whose content is, until the next step, the checkpoint of the block of that name."""

    @property
    def checkpoints(self) -> int:
        """How many there are."""
        return len(self._checkpoints)

    def has(self, serial: int) -> bool:
        """Whether there is a checkpoint of the states after a block."""
        return serial in self._checkpoints

    def begin(self, states: States, serial: int) -> None:
        """Continue from a checkpoint that there is."""
        self._checkpoints.move_to_end(serial)
        states.now = self._checkpoints[serial]
        self._holders[states.now] += 1

    def prepare(self, states: States) -> None:
        """Give a request a slot for its next step, unless it has one of a step that failed."""
        if self.size and states.next is None:
            states.next = self._take()
        self._drop(states.ahead)
        states.ahead = None

    def look_ahead(self, states: States) -> bool:
        """Give it one for the step after that, if there is one that nobody needs; whether it has one."""
        if self.size and states.ahead is None and (self._free or self._checkpoints):
            states.ahead = self._take()
        return states.ahead is not None or not self.size

    def advance(self, states: States) -> None:
        """A step is done."""
        self._drop(states.now)
        states.now, states.next, states.ahead = states.next, states.ahead, None

    def keep(self, states: States, serial: int, *, answer: bool, name: bytes = b"") -> None:
        """Make what a request continues from the checkpoint of a block; of an answer only the latest stays."""
        if answer and states.kept is not None and states.kept != serial:
            self._drop(self._checkpoints.pop(states.kept, None))
            self._names.pop(states.kept, None)
            states.kept = None
        if serial not in self._checkpoints and states.now is not None:
            self._checkpoints[serial] = states.now
            if name:
                self._names[serial] = name
            self._holders[states.now] += 1
            states.kept = serial if answer else None

    def release(self, states: States) -> None:
        """Take back what a request has."""
        for slot in (states.now, states.next, states.ahead):
            self._drop(slot)
        states.now = states.next = states.ahead = states.kept = None

    def named(self) -> list[tuple[int, bytes]]:
        """The slots of checkpoints whose blocks have names."""
        return [(self._checkpoints[serial], name) for serial, name in self._names.items()]

    def lend(self) -> list[int]:
        """Every slot that no request has; checkpoints go. They come back by `give_back`."""
        while self._checkpoints:
            self._forget()
        return [self._take() for _ in range(len(self._free))]

    def give_back(self, slots: list[int]) -> None:
        """Take back slots that were lent."""
        for slot in slots:
            self._drop(slot)

    def _take(self) -> int:
        while not self._free:
            self._forget()
        slot = self._free.pop()
        self._holders[slot] = 1
        return slot

    def _forget(self) -> None:
        """Give up the checkpoint that was used longest ago."""
        serial, slot = self._checkpoints.popitem(last=False)
        if name := self._names.pop(serial, b""):
            self.evicted.append((slot, name))
        self._drop(slot)

    def _drop(self, slot: int | None) -> None:
        if slot is None:
            return
        self._holders[slot] -= 1
        if not self._holders[slot]:
            self._free.append(slot)
