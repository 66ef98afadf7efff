"""The backends by name, and which of them `auto` means on this machine."""

from __future__ import annotations

import sys
from importlib import import_module

from edgert_models.errors import BackendError, RequestError

from edgert_runtimes.base import Backend, Probe

_FACTORIES = {
    "cpu": ("edgert_runtimes.cpu.backend", "CpuBackend"),
    "cuda": ("edgert_runtimes.cuda.backend", "CudaBackend"),
    "mlx": ("edgert_runtimes.mlx.backend", "MlxBackend"),
    "reference": ("edgert_runtimes.reference.backend", "ReferenceBackend"),
}
# In order of preference; `reference` is for checking and has to be asked for. MLX is not even looked for where it has
# no GPU: to import it takes a while.
_AUTOMATIC = ("mlx", "cpu") if sys.platform == "darwin" else ("cuda", "cpu")
# What says why a backend cannot run here without importing the backend, which takes longer than to load a small model.
_ABSENCES = {"cuda": ("edgert_runtimes.cuda.probing", "no_driver")}
# Backends that let another one compute experts which do not fit in their memory.
_HELPED = {"cuda": "cpu"}


def backend_names() -> tuple[str, ...]:
    """Every backend this version has."""
    return tuple(_FACTORIES)


def get_backend(name: str = "auto") -> Backend:
    """The backend called `name`, or the best that runs here; BackendError says why one cannot run."""
    if name == "auto":
        reasons = {}
        for candidate in _AUTOMATIC:
            if reason := _absence(candidate):
                reasons[candidate] = reason
                continue
            backend = _make(candidate)
            probe = backend.probe()
            if probe.available and (probe.gpu or candidate == "cpu"):
                return backend
            reasons[candidate] = probe.reason or "there is no GPU for it"
        raise BackendError("no backend runs here: " + "; ".join(f"{key}: {why}" for key, why in reasons.items()))
    backend = _make(name)
    probe = backend.probe()
    if not probe.available:
        raise BackendError(f"backend '{name}' cannot run here: {probe.reason}")
    return backend


def probe_all() -> dict[str, Probe]:
    """What every backend says of this machine."""
    return {name: _make(name).probe() for name in _FACTORIES}


def _absence(name: str) -> str:
    """Why a backend cannot run here, or nothing where that takes a closer look."""
    if name not in _ABSENCES:
        return ""
    module, function = _ABSENCES[name]
    return str(getattr(import_module(module), function)())


def _make(name: str) -> Backend:
    if name not in _FACTORIES:
        raise RequestError(f"unknown backend '{name}'; there are: auto, {', '.join(_FACTORIES)}", parameter="backend")
    module, factory = _FACTORIES[name]
    make = getattr(import_module(module), factory)
    helper = _HELPED.get(name)
    backend: Backend = make() if helper is None else make(lambda: _make(helper))
    return backend
