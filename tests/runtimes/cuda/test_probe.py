"""Why the backend cannot run, in one line each; `auto` goes on to the next."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec

import pytest
from edgert_models.errors import BackendError
from edgert_runtimes.cuda import probing
from edgert_runtimes.registry import get_backend

from tests.support.cuda_device import HostDevice


def test_without_wheels_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    reason = r"cannot run here: the package cuda-bindings is not installed: pip install \"edgert\[cuda\]\"$"
    with pytest.raises(BackendError, match=reason):
        get_backend("cuda")
    assert get_backend("auto").name != "cuda"


@pytest.mark.skipif(find_spec("cuda") is None, reason="cuda-bindings is not installed")
def test_errors_of_the_driver_are_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgert_runtimes.cuda import driver

    monkeypatch.setattr(probing, "no_driver", lambda: "")
    for error, reason in (
        (RuntimeError("libcuda.so.1 has no cuInit"), "libcuda.so.1 has no cuInit"),
        (BackendError("the driver finds no GPU"), "the driver finds no GPU"),
    ):

        def fail(error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(driver, "facts_of", fail)
        probe = probing.probe()
        assert (probe.available, probe.reason) == (False, reason)


def test_old_gpus_are_named() -> None:
    facts = dataclasses.replace(HostDevice().facts, name="GTX 1080", capability=(6, 1))
    assert probing.unsuitable(facts) == "GTX 1080 has compute capability 6.1, at least 7.5 is needed"
    assert probing.unsuitable(HostDevice().facts) == ""
    assert probing.describe(facts)["bandwidth"] == "100 GB/s"


def test_without_a_driver_the_backend_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_LIBRARY", "libcuda-that-is-not-there.so")
    assert probing.no_driver() == "NVIDIA's driver (libcuda) is not installed here"
    if find_spec("cuda") is not None:
        assert probing.probe().reason == probing.no_driver()
    asked = """
import sys
from edgert_runtimes.cuda import probing
probing._LIBRARY = "libcuda-that-is-not-there.so"
from edgert_runtimes.registry import get_backend
assert get_backend("auto").name == "cpu"
print([name for name in sys.modules if name.startswith("cuda") or name == "edgert_runtimes.cuda.backend"])
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
