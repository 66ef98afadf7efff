"""Memory by address: aligned buffers, offsets in them, how much of it there is, and whether a plan of it fits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from edgert_models.errors import MemoryBudgetError
from numpy.typing import NDArray

ALIGNMENT = 64


def aligned(size: int) -> int:
    """`size` rounded up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def allocate(size: int) -> NDArray[np.uint8]:
    """A zeroed buffer that starts at a cache line; memory is taken page by page as it is first written."""
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def available_memory() -> int | None:
    """Bytes that can be taken now without swapping, or None where the system does not say."""
    figures = [figure for figure in (_free_memory(), _control_group_memory()) if figure is not None]
    return min(figures) if figures else None


def _free_memory() -> int | None:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _control_group_memory() -> int | None:
    """What the process's control group still allows (version 2, mounted where it usually is)."""
    with suppress(OSError, ValueError):
        root = Path("/sys/fs/cgroup")
        limit = (root / "memory.max").read_text().strip()
        if limit != "max":
            return max(0, int(limit) - int((root / "memory.current").read_text()))
    return None


def gibibytes(size: int) -> str:
    """A size for messages: GiB, or MiB below one."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


_LESS = {"cache": "a smaller context or kv_type takes less", "workspace": "a smaller context or fewer rows take less"}


def check_memory(sizes: Mapping[str, int], available: int | None, where: str = "memory") -> None:
    """MemoryBudgetError with the figures and what would take less, where `sizes` (bytes by what takes them) exceed what
    is available.
    """
    needed = sum(sizes.values())
    if available is not None and needed > available:
        parts = ", ".join(f"{name} {gibibytes(size)}" for name, size in sizes.items())
        less = _LESS.get(max(sizes, key=lambda name: sizes[name]), "a file of fewer bits takes less")
        raise MemoryBudgetError(
            f"the model needs {gibibytes(needed)} of {where} ({parts}), {gibibytes(available)} are available; {less}",
            needed=needed,
            available=available,
        )


class Arena:
    """Offsets in one stretch of memory, given out first fit and taken back; `size` is the most that was ever in use."""

    def __init__(self) -> None:
        self.size = 0
        self._free: list[tuple[int, int]] = []  # (start, end), sorted, never touching

    def allocate(self, size: int) -> tuple[int, int]:
        """A span (start, end) of whole cache lines."""
        size = aligned(size)
        for i, (start, end) in enumerate(self._free):
            if end - start >= size:
                self._free[i : i + 1] = [(start + size, end)] if end - start > size else []
                return start, start + size
        start = self.size
        if self._free and self._free[-1][1] == self.size:
            start = self._free.pop()[0]
        self.size = start + size
        return start, self.size

    def release(self, span: tuple[int, int]) -> None:
        """Take a span back."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted([*self._free, span]):
            if merged and merged[-1][1] == start:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((start, end))
        self._free = merged
