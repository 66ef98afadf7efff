"""Settings of libraries. MLX calls g++ to compile functions on the CPU, which takes seconds: only a test of that does.

One thread for NumPy's matrix products: those of tests are small, and threads that wait for each other in a spin take
five times as long where cores are shared.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import builds

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
os.environ["EDGERT_CONFIG"] = ""  # not what the user has configured


def pytest_configure(config: pytest.Config) -> None:
    assert config.cache is not None
    folder = os.environ.setdefault(builds.VARIABLE, str(config.cache.mkdir("builds")))
    if not hasattr(config, "workerinput"):
        builds.prune(Path(folder))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One for each core, up to eight; none for single files, which are done before workers have started."""
    if any(".py" in argument for argument in config.args):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 8)
