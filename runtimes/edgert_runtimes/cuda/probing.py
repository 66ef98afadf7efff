"""Whether there is a GPU that the backend can use, and why not."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

from edgert_models.errors import BackendError

from edgert_runtimes.base import Probe

if TYPE_CHECKING:
    from edgert_runtimes.cuda.device import Facts

PACKAGES = ("cuda-bindings", "nvidia-cuda-nvrtc")
"""Wheels of the extra `edgert[cuda]`: the driver's functions, and the compiler."""

LEAST = (7, 5)
"""The oldest compute capability that the compiler makes code for."""


_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def no_driver() -> str:
    """That NVIDIA's driver is missing, or nothing; cheap."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return "NVIDIA's driver (libcuda) is not installed here"
    return ""


def probe() -> Probe:
    """See Backend."""
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            return Probe(False, f'the package {name} is not installed: pip install "edgert[cuda]"')
    if reason := no_driver():
        return Probe(False, reason, versions)
    try:
        from edgert_runtimes.cuda.driver import facts_of

        facts = facts_of()
    except (ImportError, RuntimeError, BackendError) as error:  # RuntimeError: cuda.bindings cannot use the library
        return Probe(False, str(error), versions)
    reason = unsuitable(facts)
    return Probe(not reason, reason, {**describe(facts), **versions}, gpu=not reason)


def unsuitable(facts: Facts) -> str:
    """Why a GPU cannot be used, or nothing."""
    if facts.capability < LEAST:
        found, least = (".".join(map(str, capability)) for capability in (facts.capability, LEAST))
        return f"{facts.name} has compute capability {found}, at least {least} is needed"
    return ""


def describe(facts: Facts) -> dict[str, str]:
    """What `edgert doctor` shows."""
    return {
        "gpu": facts.name,
        "compute_capability": ".".join(map(str, facts.capability)),
        "memory": f"{facts.memory / 2**30:.1f} GiB, of which {facts.free / 2**30:.1f} GiB are free",
        "multiprocessors": str(facts.multiprocessors),
        "bandwidth": f"{facts.bandwidth / 1e9:.0f} GB/s" if facts.bandwidth else "unknown",
        "driver": facts.driver,
    }
