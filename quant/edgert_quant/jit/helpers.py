"""Compiling in several processes: LLVM, and Numba above it, work for one thread at a time.

A helper is a process that is told names of kernels, line by line, compiles them into the cache and tells each name when
it is done. What it does not do, for whatever reason, is left to the process that asked.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from edgert_quant.jit.declare import Kernel, Progress, prepare

if TYPE_CHECKING:
    import subprocess

MOST = 7
"""Helpers at once: each takes some 200 MiB, and the longest kernel sets an end to what more of them gain."""

KERNELS_EACH = 4
"""Kernels that are worth starting a helper for: it is ready after a second."""


def prepare_together(kernels: Iterable[Kernel], module: str, processes: int, progress: Progress | None = None) -> int:
    """As `prepare`, with up to `processes` processes, this one included; those beside it run `python -m module`, whose
    main program is `serve`.
    """
    missing = [item for item in dict.fromkeys(kernels) if not item.load_cached()]
    count = min(processes - 1, MOST, len(missing) // KERNELS_EACH)
    if count < 1 or not sys.executable or getattr(sys, "frozen", False):
        return prepare(missing, progress)
    missing.sort(key=lambda item: item.kind == "ir")  # these take less time: better to end with them
    waiting, done, total = deque(missing), SimpleQueue[Kernel](), len(missing)
    finished = 0

    def tell(item: Kernel, more: int = 0) -> None:
        nonlocal finished
        finished += more
        if progress is not None:
            progress(finished, total, item.name)

    with _helpers(module, count, waiting, done):
        while finished < total:
            try:
                item = waiting.popleft()
            except IndexError:
                with suppress(Empty):  # or one that a helper failed at waits again
                    tell(done.get(timeout=0.02), 1)
                continue
            tell(item)
            item.load()
            tell(item, 1)
            with suppress(Empty):
                while True:
                    tell(done.get_nowait(), 1)
    for item in missing:
        item.load()
    return total


@contextmanager
def _helpers(module: str, count: int, waiting: deque[Kernel], done: SimpleQueue[Kernel]) -> Iterator[None]:
    """Threads that each have a process compile what is waiting."""
    import subprocess  # not where everything is compiled already: it is slow to import

    # -P: the folder that the user happens to be in is no place to import from.
    command = [sys.executable, "-P", "-m", module]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    processes: list[subprocess.Popen[str]] = []
    with suppress(OSError):
        for _ in range(count):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            processes.append(subprocess.Popen(command, env=environment, text=True, **pipes))  # type: ignore[call-overload]
    threads = [threading.Thread(target=_ask, args=(each, waiting, done), daemon=True) for each in processes]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()


def _ask(process: subprocess.Popen[str], waiting: deque[Kernel], done: SimpleQueue[Kernel]) -> None:
    """Have a helper compile until nothing waits, or it fails."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout, suppress(OSError, ValueError):
        if process.stdout.readline() != READY:
            return
        while True:
            try:
                item = waiting.popleft()
            except IndexError:
                return
            print(item.name, file=process.stdin, flush=True)
            if process.stdout.readline().rstrip("\n") != item.name:
                waiting.append(item)
                return
            done.put(item)


READY = "ready\n"


def serve(kernels: Mapping[str, Kernel]) -> None:
    """A helper's main program: compile what stdin names."""
    sys.stdout.write(READY)
    sys.stdout.flush()
    for line in sys.stdin:
        kernels[line.rstrip("\n")].load()
        sys.stdout.write(line)
        sys.stdout.flush()
