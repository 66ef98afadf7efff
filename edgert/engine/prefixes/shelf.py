"""Between an engine and its store: one thread writes, one reads, so that the engine waits for neither.

What is to be written waits in memory, up to a bound; beyond it is forgotten, since a prefix that is not found is only
computed again. What is read comes back in pieces, of which few are in memory at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from edgert.engine.prefixes.segment import MOST, Bytes, Content
from edgert.engine.prefixes.store import BLOCK, KINDS, STATE, WINDOW, Reader, Store

if TYPE_CHECKING:
    from edgert.engine.request import Request

_log = logging.getLogger("edgert.engine")
_WAITING_BYTES = 1 << 28  # to be written
_PIECE_BYTES = 1 << 23
_PIECES = 4  # of one request, read and not taken yet
_GATHERING_SECONDS = 0.5  # for what is to be written together
_CLOSING_SECONDS = 10.0  # to write what waits when all is over


@dataclass(eq=False, slots=True)
class Fetch:
    """What a request wants: blocks, in order; blocks of layers with a window, by their numbers in the sequence; and the
    states after the last of them (None: it has none, or they are there already). If `whole` a part of it is of no use.
    """

    request: Request
    names: list[bytes]
    windows: list[tuple[int, bytes]] = field(default_factory=list)
    state: bytes | None = None
    whole: bool = False
    cancelled: bool = False
    room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_PIECES))

    def cancel(self) -> None:
        """What is still to come is not wanted any more."""
        self.cancelled = True
        self.room.release()


@dataclass(frozen=True, slots=True)
class Piece:
    """The next contents of a fetch that are of one kind, uint8 [any, bytes of one], the first of which is its number
    `first` of these; None in the last piece, which says whether all have come.
    """

    fetch: Fetch
    kind: str = BLOCK
    first: int = 0
    content: Bytes | None = None
    all_there: bool = False


class Shelf:
    """Keeps blocks and states of one model in `store`. `roots` are the names of beginnings: of the model itself, then
    of each of its adapters.
    """

    def __init__(self, store: Store, roots: Sequence[bytes]) -> None:
        self.store = store
        self.written = 0
        """Blocks and states that have been written."""
        self._roots = roots
        self._lock = threading.Lock()
        self._waiting: dict[tuple[bytes, str], Bytes] = {}  # to be written
        self._waiting_bytes = 0
        self._until = float("inf")  # time.monotonic(), after which nothing is written any more
        self._closed = False
        self._writes: SimpleQueue[tuple[bytes, str] | None] = SimpleQueue()
        self._reads: SimpleQueue[tuple[Fetch, Callable[[Piece], None]] | None] = SimpleQueue()
        works = (("edgert-prefix-writer", self._write), ("edgert-prefix-reader", self._read))
        self._threads = [threading.Thread(target=work, name=name, daemon=True) for name, work in works]
        for thread in self._threads:
            thread.start()

    def root(self, root: int) -> bytes:
        """The name of the beginning of a chain: see `Request.root`."""
        return self._roots[-root]

    @property
    def full(self) -> bool:
        """Whether as much waits to be written as may."""
        return self._waiting_bytes >= _WAITING_BYTES

    def has(self, name: bytes, kind: str) -> bool:
        """Whether it is there to be fetched."""
        return (name, kind) in self._waiting or self.store.has(name, kind)

    def keep(self, name: bytes, kind: str, content: Bytes, *, patient: bool = False) -> None:
        """Write content in a while, unless too much waits already; `patient`: wait then."""
        while self.full:
            if not patient or time.monotonic() > self._until:
                return
            time.sleep(0.005)
        if (name, kind) in self._waiting:
            return
        with self._lock:
            self._waiting[name, kind] = content
            self._waiting_bytes += content.nbytes
        self._writes.put((name, kind))

    def fetch(self, wanted: Fetch, deliver: Callable[[Piece], None]) -> None:
        """Read what is wanted as far as it is there; `deliver` gets it in pieces, on a thread of its own."""
        self._reads.put((wanted, deliver))

    def closing(self) -> None:
        """From now on there are only some seconds to write."""
        self._until = min(self._until, time.monotonic() + _CLOSING_SECONDS)

    def close(self) -> None:
        """Write what waits while there is time for it, and end the threads."""
        self.closing()
        self._closed = True
        self._writes.put(None)
        self._reads.put(None)
        for thread in self._threads:
            thread.join()

    def _write(self) -> None:
        while (first := self._writes.get()) is not None:
            gathered, goes_on = self._gather(first)
            for kind in KINDS:
                contents = [(name, self._waiting[name, each]) for name, each in gathered if each == kind]
                self._write_some(contents, kind)
            if not goes_on:
                return

    def _gather(self, first: tuple[bytes, str]) -> tuple[list[tuple[bytes, str]], bool]:
        """What is to be written within a moment of the first, since a file of many is read more quickly than many
        files, and whether anything may follow.
        """
        gathered, until = {first: None}, time.monotonic() + _GATHERING_SECONDS
        with suppress(Empty):
            while len(gathered) < MOST and not self.full:
                item = self._writes.get(timeout=max(0.0, until - time.monotonic()))
                if item is None:
                    return list(gathered), False
                gathered[item] = None
        return list(gathered), True

    def _write_some(self, contents: Sequence[Content], kind: str) -> None:
        try:
            if time.monotonic() < self._until:
                self.written += self.store.write(contents, kind)
        except Exception:
            _log.exception("prefixes cannot be written to disk")
        with self._lock:
            for name, content in contents:
                self._waiting.pop((name, kind), None)
                self._waiting_bytes -= content.nbytes

    def _read(self) -> None:
        while (item := self._reads.get()) is not None:
            wanted, deliver = item
            try:
                self._read_one(wanted, deliver)
            except Exception:
                _log.exception("a prefix cannot be read from disk")
                deliver(Piece(wanted))

    def _read_one(self, wanted: Fetch, deliver: Callable[[Piece], None]) -> None:
        windows, states = [name for _, name in wanted.windows], [] if wanted.state is None else [wanted.state]
        there = True
        for kind, names in ((BLOCK, wanted.names), (WINDOW, windows), (STATE, states)):
            there = there and self._read_all(wanted, kind, names, deliver)
        if not (wanted.cancelled or self._closed):
            deliver(Piece(wanted, all_there=there))

    def _read_all(self, wanted: Fetch, kind: str, names: Sequence[bytes], deliver: Callable[[Piece], None]) -> bool:
        """Read contents of one kind; whether all are there."""
        ready: list[Bytes] = []

        def send(end: int) -> None:
            if ready:
                wanted.room.acquire()
                deliver(Piece(wanted, kind, end - len(ready), np.stack(ready)))
                ready.clear()

        with self.store.reading(kind) as reader:
            for number, name in enumerate(names, 1):
                if wanted.cancelled or self._closed:
                    return False
                content = self._found(name, kind, reader)
                if content is None or (ready and len(content) != len(ready[0])):
                    send(number - 1)
                    return False
                ready.append(content)
                if len(ready) * len(content) >= _PIECE_BYTES:
                    send(number)
            send(len(names))
        return True

    def _found(self, name: bytes, kind: str, reader: Reader) -> Bytes | None:
        content = self._waiting.get((name, kind))
        return reader.read(name) if content is None else content
