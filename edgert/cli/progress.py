"""Bars for what takes long; what does not take long pays nothing for them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgert_runtimes.base import Progress
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

PATIENCE = 0.2
"""Seconds until bars are worth drawing, and the library that draws them worth importing."""

_TITLES = {
    "compile": "Compiling kernels for this CPU (once)",
    "download": "Fetching the model",
    "verify": "Checking what was fetched",
    "load": "Loading the model",
    "digest": "Reading the weights, which prefixes on disk belong to (once)",
    "measure": "Measuring",
    "self-test": "Comparing with the reference",
}


@contextmanager
def loading(quiet: bool = False) -> Iterator[Progress]:
    """A progress callback for what takes long: a bar on stderr for each stage, where that is a terminal."""
    with ExitStack() as stack:
        start = time.perf_counter()
        bars: Bar | None = None
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            nonlocal bars
            if bars is None:
                if time.perf_counter() - start < PATIENCE:
                    return
                from edgert.cli.console import bar

                bars = stack.enter_context(bar())
            if stage not in tasks:
                tasks[stage] = bars.add_task(_TITLES.get(stage, stage), total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield _ignore if quiet or not sys.stderr.isatty() else report


def _ignore(stage: str, done: int, total: int) -> None:
    """Where there is nobody to see it."""
