"""The scripts for a GPU run to their end on a device made of the host."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import cuda, cuda_first_run, cuda_reach
from edgert.measure import Phase, Trial

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


def test_what_is_to_be_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Every figure and profile of a tiny model that is written for it; and no figure where there is no time."""
    from edgert_runtimes.conformance.tiny import tiny_spec

    from tests.support.cuda_device import HostCudaBackend

    figures = (
        cuda_reach.Figure(cuda_reach.answer(3), rate=0.001),
        cuda_reach.Figure(cuda_reach.answer(2, batch=2), rate=1e12),
        cuda_reach.Figure(Trial(phase=Phase.PREFILL, tokens=9), of_bandwidth=1e-12),
    )
    monkeypatch.setattr(cuda_reach, "MODELS", (cuda_reach.Model("qwen3", "f32", figures),))
    monkeypatch.setattr(cuda_reach, "SHAPES", {"qwen3": tiny_spec("qwen3moe")})
    monkeypatch.setattr(cuda_reach, "profiled", lambda figures: [Trial(phase=Phase.DECODE, tokens=1, batch=2)])
    monkeypatch.setattr("edgert.llm.get_backend", lambda name: HostCudaBackend())

    def lines(*options: str) -> list[dict[str, object]]:
        monkeypatch.setattr(sys, "argv", ["cuda_reach", str(tmp_path), *options])
        cuda_reach.main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert lines("--write") == []
    first, loaded, *found, profile = lines()
    assert first["machine"]
    assert loaded["instruction_set"] == "sm_89"
    assert [line["trial"] for line in found] == ["llm-tg3", "llm-tg2×2", "pp9"]
    assert [line["reached"] for line in found] == [True, False, True]
    assert profile["kernels"]
    assert [line["left_out"] for line in lines("--seconds", "0")[2:]] == ["no time"] * 4
