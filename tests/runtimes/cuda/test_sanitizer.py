"""NVIDIA's own checks of memory and of races between threads, where its toolkit is installed beside a GPU."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from edgert_runtimes.cuda.probing import probe

TESTS = "tests/runtimes/cuda/test_session.py"

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.slow,
    pytest.mark.skipif(not probe().available, reason=f"no GPU: {probe().reason}"),
    pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed"),
]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_sessions_under_the_sanitizer(tool: str) -> None:
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, "-m", "pytest", "-q"]
    done = subprocess.run([*command, "-m", "cuda", TESTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
