"""Backends by name, and which of them `auto` takes."""

import sys
from collections.abc import Callable

import pytest
from edgert_models.errors import BackendError, RequestError
from edgert_runtimes import registry
from edgert_runtimes.base import Probe


class Named:
    def __init__(self, name: str, probe: Probe) -> None:
        self.name = name
        self.probe: Callable[[], Probe] = lambda: probe


def automatic(monkeypatch: pytest.MonkeyPatch, **probes: Probe) -> str:
    monkeypatch.setattr(registry, "_AUTOMATIC", tuple(probes))
    monkeypatch.setattr(registry, "_make", lambda name: Named(name, probes[name]))
    return registry.get_backend("auto").name


def test_auto_takes_a_gpu_and_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Probe(True)
    assert automatic(monkeypatch, mlx=Probe(True, gpu=True), cpu=cpu) == "mlx"
    assert automatic(monkeypatch, mlx=Probe(True), cpu=cpu) == "cpu"
    assert automatic(monkeypatch, mlx=Probe(False, "not installed"), cpu=cpu) == "cpu"
    with pytest.raises(BackendError, match=r"^no backend runs here: mlx: there is no GPU for it; cpu: too old$"):
        automatic(monkeypatch, mlx=Probe(True), cpu=Probe(False, "too old"))


def test_without_a_gpu_mlx_is_not_looked_for() -> None:
    assert ("mlx" in registry._AUTOMATIC) == (sys.platform == "darwin")
    assert registry.get_backend("auto").name in registry._AUTOMATIC


def test_unknown_names_are_refused() -> None:
    with pytest.raises(RequestError, match=r"^unknown backend 'tpu'; there are: auto, cpu, cuda, mlx, reference$"):
        registry.get_backend("tpu")


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    monkeypatch.setattr(sys, "platform", "linux")
    message = r'^backend .mlx. cannot run here: the mlx package is not installed; run: pip install "edgert\[mlx-cpu\]"$'
    with pytest.raises(BackendError, match=message):
        registry.get_backend("mlx")
