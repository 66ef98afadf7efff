"""`edgert doctor`: what this machine has, what edgert will use of it, and why not the rest."""

from __future__ import annotations

import os
import platform
import sys

from edgert import __version__
from edgert.cli import options

_PACKAGES = ("numpy", "numba", "llvmlite", "gguf", "tokenizers", "fastapi", "uvicorn")


def doctor(as_json: options.Json = False) -> None:
    """Report versions, backends, caches and memory; the exit code is 1 where no backend runs."""
    from importlib.metadata import PackageNotFoundError, version

    from edgert_quant.jit import cache_folder
    from edgert_runtimes.registry import probe_all

    from edgert.cli.console import out, print_json, size

    packages = {"edgert": __version__}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "missing"
    probes = probe_all()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    if as_json:
        print_json(
            {
                "python": platform.python_version(),
                "platform": platform.platform(),
                "cores": os.cpu_count(),
                "memory_bytes": memory,
                "packages": packages,
                "kernel_cache": str(cache_folder()),
                "backends": {
                    name: {"available": p.available, "reason": p.reason, **p.details} for name, p in probes.items()
                },
            }
        )
    else:
        lines = [
            f"Python {platform.python_version()} on {platform.platform()}",
            f"{os.cpu_count()} cores, {size(memory)} of memory",
            ", ".join(f"{name} {number}" for name, number in packages.items()),
            f"kernel cache: {cache_folder()}",
        ]
        for name, probe in probes.items():
            lines.append(f"backend {name}: {'available' if probe.available else 'not available: ' + probe.reason}")
            for key, value in probe.details.items():
                lines.append(f"    {key.replace('_', ' ')}: {value if isinstance(value, str) else ''}".rstrip())
                if not isinstance(value, str):
                    lines += [f"        {name}: {state}" for name, state in value.items()]
        for line in lines:
            out.print(line, markup=False, soft_wrap=True)
    if not any(probe.available for name, probe in probes.items() if name != "reference"):
        sys.exit(1)
