"""Runs a function in a process of its own, whose memory and time are limited."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [str(ROOT), str(ROOT / "quant"), str(ROOT / "runtimes"), str(ROOT / "models")]

_PRELUDE = """
import json, os, resource, sys, time
def limit_memory(extra):
    with open("/proc/self/statm") as counters:
        used = int(counters.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, resource.getrlimit(resource.RLIMIT_AS)[1]))
"""


def environment() -> dict[str, str]:
    """What a Python process needs to import the packages; one thread in NumPy, as each takes address space."""
    return {"PYTHONPATH": ":".join(SOURCES), "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}


def run_limited(script: str, *arguments: object) -> object:
    """What `script` prints as JSON. It may call `limit_memory(bytes)`, which counts from what the process uses then."""
    command = [sys.executable, "-W", "error", "-c", _PRELUDE + script, *map(str, arguments)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


_OPENINGS = """
from edgert_models.errors import FileFormatError, UnsupportedError
from {module} import {name} as opened

results = {{}}
for path in sys.argv[1:]:
    limit_memory((64 << 20) + 2 * os.path.getsize(path))
    start = time.process_time()
    try:
        opened.open(path).close()
        outcome = "loads"
    except (FileFormatError, UnsupportedError) as error:
        outcome = str(error)
    results[path] = [outcome, time.process_time() - start]
print(json.dumps(results))
"""


def open_limited(opened: type, *paths: Path) -> dict[str, tuple[str, float]]:
    """What `opened.open` says of each path, and in how many seconds, with 64 MiB and twice the file of memory."""
    results = run_limited(_OPENINGS.format(module=opened.__module__, name=opened.__name__), *paths)
    assert isinstance(results, dict)
    return results
