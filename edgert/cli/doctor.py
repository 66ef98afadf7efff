"""`edgert doctor`: what this machine has, what edgert uses of it, why not the rest, and whether it computes rightly."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from edgert_models.errors import BackendError, RequestError

from edgert import __version__
from edgert.cli import options

if TYPE_CHECKING:
    from edgert_runtimes.base import Probe

    from edgert.self_test import SelfTest

_PACKAGES = ("numpy", "numba", "llvmlite", "gguf", "tokenizers", "fastapi", "uvicorn", "mlx", "cuda-bindings")


def doctor(
    self_test: Annotated[
        bool | None,
        typer.Option(
            "--self-test/--no-self-test",
            help="Compare every op with the reference, and run the demo model. Default: where a GPU is used.",
        ),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="The backend that --self-test tests; default auto.")] = None,
    as_json: options.Json = False,
) -> None:
    """Report versions, backends, caches and memory; the exit code is 1 where auto finds no backend or a test fails."""
    from edgert_quant.hub import hub_cache
    from edgert_runtimes.registry import probe_all

    from edgert.cli import self_test_report
    from edgert.cli.console import print_json, size

    if backend is not None and not self_test:
        raise RequestError("--backend chooses what --self-test tests; give both", parameter="backend")
    packages = {"edgert": __version__, **_versions()}
    probes = probe_all()
    tested = _tested(self_test, backend, probes)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    if as_json:
        results = [_run(name, quiet=True) for name in tested]
        print_json(
            {
                "python": platform.python_version(),
                "platform": platform.platform(),
                "cores": os.cpu_count(),
                "memory_bytes": memory,
                "packages": packages,
                "kernel_cache": _kernel_cache(),
                "model_cache": str(hub_cache()),
                "backends": {
                    name: {"available": p.available, "reason": p.reason, **p.details} for name, p in probes.items()
                },
                "self_tests": [self_test_report.as_json(result) for result in results],
            }
        )
    else:
        _print(
            f"Python {platform.python_version()} on {platform.platform()}",
            f"{os.cpu_count()} cores, {size(memory)} of memory",
            ", ".join(f"{name} {number}" for name, number in packages.items()),
            f"kernel cache: {_kernel_cache()}",
            f"model cache: {hub_cache()}",
            *_about_backends(probes),
        )
        results = []
        for name in tested:
            results.append(_run(name, quiet=False))
            _print(*self_test_report.lines(results[-1]))
        if self_test is None and not tested:
            _print("self-test: not run, as no backend here uses a GPU; edgert doctor --self-test runs it all the same")
    if not _runs() or not all(result.passed for result in results):
        sys.exit(1)


def _kernel_cache() -> str:
    """Where kernels are kept, or why nowhere."""
    from edgert_quant.jit import cache_folder

    try:
        return str(cache_folder())
    except RuntimeError as error:
        return f"none ({error}); EDGERT_CACHE_DIR names a folder"


def _runs() -> bool:
    """Whether other commands find a backend if none is named."""
    from edgert_runtimes.registry import get_backend

    try:
        get_backend()
    except BackendError:
        return False
    return True


def _print(*lines: str) -> None:
    from edgert.cli.console import out

    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def _about_backends(probes: Mapping[str, Probe]) -> Iterator[str]:
    for name, probe in probes.items():
        yield f"backend {name}: {'available' if probe.available else 'not available: ' + probe.reason}"
        for key, value in probe.details.items():
            yield f"    {key.replace('_', ' ')}: {value if isinstance(value, str) else ''}".rstrip()
            if not isinstance(value, str):
                yield from (f"        {name}: {state}" for name, state in value.items())


def _tested(wanted: bool | None, backend: str | None, probes: Mapping[str, Probe]) -> list[str]:
    """The backends to test: the one asked for, or those on GPUs, which no test of the project's own has run on."""
    if wanted is None:
        return [name for name, probe in probes.items() if probe.available and probe.gpu]
    return [backend or "auto"] if wanted else []


def _run(name: str, *, quiet: bool) -> SelfTest:
    from edgert.cli.progress import loading
    from edgert.self_test import self_test

    with loading(quiet) as progress:
        return self_test(name, progress)
