"""Every benchmark that needs nothing but edgert can be started."""

import importlib
import pkgutil
import sys

import pytest

import benchmarks

DRAWING = {"roofline"}
PEERS = {"mlx_lm_peer"}  # run by another Python, that has the peer
NAMES = sorted({module.name for module in pkgutil.iter_modules(benchmarks.__path__)} - PEERS)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_how_it_is_called(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in DRAWING:
        pytest.importorskip("matplotlib", reason="matplotlib (dependency group bench) is not installed")
    module = importlib.import_module(f"benchmarks.{name}")
    if not hasattr(module, "main"):
        return  # what others are made of
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")
