"""Notices that the engine's thread does not come back from its work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class HungError(RuntimeError):
    """Work took so long that everybody was told it hangs; what it came to is not wanted any more."""


class Watchdog:
    """Calls `bark(seconds)` on a thread of its own, once, when work takes longer than `limit` seconds."""

    def __init__(self, limit: float, bark: Callable[[float], None]) -> None:
        self.barked = False
        self._limit, self._bark = limit, bark
        self._since: float | None = None  # time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edgert-watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While the work is done. HungError where it took too long, but came to its end."""
        with self._lock:
            self._since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._since = None
        self.check()

    def check(self) -> None:
        """HungError if the work that is being done has taken too long."""
        if self.barked:
            raise HungError(f"a step of the model did not come back for {self._limit:g} s")

    def calm(self) -> None:
        """What hung has been replaced."""
        self.barked = False

    def close(self) -> None:
        """End the thread."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._limit / 4)):
            with self._lock:
                seconds = 0.0 if self._since is None else time.monotonic() - self._since
                barks = seconds > self._limit and not self.barked
                self.barked = self.barked or barks
            if barks:
                self._bark(seconds)
