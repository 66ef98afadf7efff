"""What g++ makes for tests, kept between tests, workers and runs under the hash of all that goes into it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

KEPT_SECONDS = 7 * 24 * 3600
"""How long what nobody makes use of is kept."""

VARIABLE = "EDGERT_TEST_BUILDS"
"""The environment variable with the folder of the builds, for processes of tests too."""


def prune(folder: Path) -> None:
    """Remove builds that have not been used for long."""
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def built(inputs: Sequence[str], make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, or has filled for the same inputs (texts of sources, and options of g++)."""
    digest = hashlib.sha256("\0".join((_compiler(), *inputs)).encode()).hexdigest()
    place = Path(os.environ[VARIABLE]) / digest[:32]
    place.mkdir(parents=True, exist_ok=True)
    os.utime(place)
    made = place / "made"
    with (place / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            folder = Path(tempfile.mkdtemp(dir=place))
            make(folder)
            folder.rename(made)
    return made


@cache
def _compiler() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout
