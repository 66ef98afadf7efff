"""Which way a device decodes faster: each is tried when a model has been loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from edgert_runtimes.base import Batch, Float32, Limits

STEPS = 6
"""Of each way; the first of each, which compile, do not count."""

ALIKE = 1e-2
"""The most normalized squared difference between the logits of both: either is rounded in its own order."""


@dataclass(frozen=True)
class Trial:
    """Whether steps of few kernels are used, and what was found: seconds of a token each way, or why not."""

    fused: bool
    finding: str


def compare(step: Callable[[Batch, bool], Float32], limits: Limits) -> Trial:
    """step(batch, fused) runs a step one way. What is in the first block of the cache is lost."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    logits: dict[bool, Float32] = {}
    try:
        for position in range(min(STEPS, limits.block_size, limits.context)):
            for fused in (False, True):
                begin = time.perf_counter()
                logits[fused] = step(_decoding(position, own=limits.window_blocks > 0), fused)
                seconds[fused].append(time.perf_counter() - begin)
            error = float(np.square(logits[True] - logits[False]).sum() / np.square(logits[False]).sum())
            if not error <= ALIKE:
                return Trial(False, f"steps of few kernels are off: their logits differ by {error:.1e}")
    except Exception as error:  # whatever Metal's compiler says: there is the other way
        return Trial(False, f"steps of few kernels failed: {error}")
    apart, together = (1e3 * median(seconds[fused][1:] or seconds[fused]) for fused in (False, True))
    finding = f"a step {apart:.2f} ms op by op, {together:.2f} ms in few kernels"
    return Trial(together < apart, finding)


def _decoding(position: int, *, own: bool) -> Batch:
    """`own`: with the first block of layers with a window too."""
    one = np.zeros(1, np.int32)
    batch = Batch(one, one + position, one, one + position, one[None], one + position + 1, one)
    return replace(batch, window_slots=batch.slots, window_tables=batch.tables) if own else batch
