"""What systemd is told: that the server is ready, that it is well, that it ends.

Source: sd_notify(3), sd_watchdog_enabled(3): datagrams to the socket that NOTIFY_SOCKET names (with @ an abstract one).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress


def notify(state: str) -> None:
    """Tell systemd, if it asked to be told: nothing happens where it did not, or does not listen."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] in ("/", "@") and hasattr(socket, "AF_UNIX"):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.connect("\0" + path[1:] if path[0] == "@" else path)
            own.send(state.encode())


def watchdog_seconds() -> float | None:
    """How often systemd wants to hear that all is well (WatchdogSec=); None where it does not."""
    pid, period = os.environ.get("WATCHDOG_PID", ""), os.environ.get("WATCHDOG_USEC", "")
    if not period.isdecimal() or int(period) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(period) / 1e6


async def keep_telling(well: Callable[[], bool]) -> None:
    """Tell twice as often as is wanted, for as long as the server is well. When that ends, systemd ends the process,
    and starts another one.
    """
    period = watchdog_seconds()
    while period is not None:
        if well():
            notify("WATCHDOG=1")
        await asyncio.sleep(period / 2)
