"""Streams of a session, for whichever threads call it. MLX never ends a stream, so those of sessions are used again."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import mlx.core as mx

from edgert_runtimes.mlx.device import on_metal


@dataclass(frozen=True)
class Streams:
    """`main`, and one `beside` it, whose work is done at the same time on the CPU, where a stream has one thread. On a
    GPU it is the same. Any thread may use them, one at a time.
    """

    main: mx.Stream
    beside: mx.Stream


_lock = threading.Lock()
_free: list[Streams] = []


def take_streams() -> Streams:
    """Those that a closed session gave back, or new ones."""
    with _lock:
        if _free:
            return _free.pop()
    device = mx.gpu if on_metal() else mx.cpu
    main = mx.new_thread_unsafe_stream(device)
    return Streams(main, main if on_metal() else mx.new_thread_unsafe_stream(device))


def give_back(streams: Streams) -> None:
    """For the next session."""
    with _lock:
        _free.append(streams)
