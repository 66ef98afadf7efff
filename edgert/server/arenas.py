"""Heaps for a process of many threads that runs for long: few, and given back."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8
_ARENAS = 2


def limit_arenas() -> None:
    """Let threads share two of glibc's arenas. It makes one for each thread that allocates while others do, up to eight
    times the cores, and each fills slowly with the scraps of whatever requests its thread happened to serve; Python's
    lock keeps threads apart anyway. Other C libraries are left as they are. Source: mallopt(3).
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return to the system the pages of these heaps that nothing is in. Takes milliseconds. Source: malloc_trim(3)."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
