"""The scripts for a GPU run to their end on a device made of the host."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from benchmarks import cuda, cuda_first_run

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed: kernels cannot be run")


def test_first_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    from tests.support.cuda_device import HostCudaBackend, HostDevice

    for name, size in {"OUT": 64, "K": 512, "ROWS": 20, "REPEATS": 1}.items():
        monkeypatch.setattr(cuda_first_run, name, size)
    monkeypatch.setattr(cuda_first_run, "get_backend", lambda name: HostCudaBackend())
    monkeypatch.setattr("edgert_runtimes.cuda.driver.DriverDevice", HostDevice)
    monkeypatch.setattr(sys, "argv", ["cuda_first_run", "--quick"])
    cuda_first_run.main()
    lines = capsys.readouterr().out.splitlines()
    assert sum("right" in line for line in lines) == 10
    assert lines[-1].startswith("next: pytest -m cuda")


def test_profile_of_kernels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from edgert.resolve import resolve_model
    from tests.support.cuda_device import HostCudaBackend

    monkeypatch.setattr("edgert.llm.get_backend", lambda name: HostCudaBackend())
    monkeypatch.setattr(sys, "argv", ["cuda", str(resolve_model(None)), "--prompt", "2", "--tokens", "1"])
    cuda.main()
    found = json.loads(capsys.readouterr().out)
    assert [profile["trial"] for profile in found["profiles"]] == ["pp2", "tg1"]
    for profile in found["profiles"]:
        assert sum(kernel["share"] for kernel in profile["kernels"]) == pytest.approx(1)
        names = [kernel["kernel"] for kernel in profile["kernels"]]
        assert any(name.startswith("experts_up ffn_gate_exps") for name in names)
    assert found["expert_hit_rate"] is None
