"""How events get from the engine's thread to whoever waits for them, without waking that thread for each: where steps
take less than a millisecond, to wake a thread costs as much, and it takes the interpreter away from the engine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from edgert.engine.request import Event, Token

if TYPE_CHECKING:
    import asyncio

_PATIENCE = 0.01
"""Seconds that tokens may wait for the next one, where nobody sees an answer before it is whole."""


class Batches:
    """Events of several requests, by number, for one thread that wants whole answers: it is woken when one ends, and by
    the first token that comes a while after it was woken last.
    """

    def __init__(self) -> None:
        self._ready: SimpleQueue[list[tuple[int, Event]]] = SimpleQueue()
        self._gathered: list[tuple[int, Event]] = []
        self._woken_at = 0.0

    def put(self, number: int, event: Event) -> None:
        """An event; on the engine's thread."""
        self._gathered.append((number, event))
        if isinstance(event, Token) and event.ending is None:
            if event.at < self._woken_at + _PATIENCE:
                return
            self._woken_at = event.at
        self._ready.put(self._gathered)
        self._gathered = []

    def get(self) -> Sequence[tuple[int, Event]]:
        """What has come, in order; waits for it."""
        return self._ready.get()


Put = Callable[[Event], None]


class _Mail:
    """Events for the thread of one event loop, which is woken by the first of those that it has not taken yet: a step
    may have one for each of many requests.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[Put, Event]] = []

    def add(self, loop: asyncio.AbstractEventLoop, put: Put, event: Event) -> None:
        with self._lock:
            self._waiting.append((put, event))
            if len(self._waiting) > 1:
                return
        try:
            loop.call_soon_threadsafe(self._hand_over)
        except RuntimeError:  # the loop is closed
            with self._lock:
                self._waiting.clear()
            raise

    def _hand_over(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for put, event in waiting:
            put(event)


_mail: WeakKeyDictionary[asyncio.AbstractEventLoop, _Mail] = WeakKeyDictionary()
_mail_lock = threading.Lock()


def delivery(loop: asyncio.AbstractEventLoop, put: Put) -> Put:
    """What gives events to `put`, which must not raise, on a loop's thread. RuntimeError where the loop is closed."""
    with _mail_lock:
        mail = _mail.setdefault(loop, _Mail())
    return partial(mail.add, loop, put)
