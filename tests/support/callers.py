"""A session called by several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable


def results_from_threads(call: Callable[[], bytes], times: int, threads: int = 4) -> list[bytes]:
    """What `call` gave, `times` in each thread."""
    results: list[bytes] = []

    def repeat() -> None:
        for _ in range(times):
            results.append(call())

    callers = [threading.Thread(target=repeat) for _ in range(threads)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return results
