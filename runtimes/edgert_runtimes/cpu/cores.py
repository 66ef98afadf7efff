"""How many threads help: the physical cores this process may use, within its control group's share of them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def core_count() -> int:
    """Threads to use where nobody says how many; two threads of one core count once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota()))


def _siblings(cpu: int) -> str:
    """Something that all hardware threads of a core have in common."""
    with suppress(OSError):
        return (CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    return str(cpu)


def _quota() -> int:
    """Whole CPUs' worth of time that the control group (version 2) allows, rounded up."""
    with suppress(OSError, ValueError):
        quota, period = QUOTA.read_text().split()
        if quota != "max":
            return max(1, -(-int(quota) // int(period)))
    return 1 << 20
