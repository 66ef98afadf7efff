"""What `edgert doctor` says of this machine, when it tests it, and what EDGERT_CPU makes of every command."""

import json
import subprocess
from pathlib import Path

import pytest
from edgert_quant.jit import Target, compiling_for
from edgert_runtimes.base import Probe, Progress
from edgert_runtimes.conformance import CASES

from edgert import self_test
from edgert.self_test import SelfTest
from tests.edgert.cli.support import process, run

VNNI = Target("x86_64-unknown-linux-gnu", "znver5", ("+avx2", "+avx512bw", "+avx512f", "+avx512vnni", "+fma"))
HASWELL = Target(VNNI.triple, "haswell", ("+avx2", "+fma"))


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGERT_CPU", raising=False)


def test_versions_and_caches() -> None:
    result = json.loads(run("doctor", "--json").stdout)
    assert result["backends"]["reference"]["available"]
    assert "kernel cache" in run("doctor").stdout


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    for name in ("EDGERT_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    shown = run("doctor")
    assert shown.exit_code == 0
    assert "kernel cache: none (Could not determine home directory.); EDGERT_CACHE_DIR names a folder" in shown.stdout


def test_instruction_sets_and_why() -> None:
    with compiling_for(HASWELL):
        cpu = json.loads(run("doctor", "--json").stdout)["backends"]["cpu"]
        lines = [line.strip() for line in run("doctor").stdout.splitlines()]
    assert cpu["instruction_set"] == "avx2"
    assert cpu["chosen_by"] == "being the best that this CPU runs"
    assert cpu["instruction_sets"] == {
        "avx512-vnni": "lacks avx512f, avx512bw, avx512vnni",
        "avx512": "lacks avx512f, avx512bw",
        "avx-vnni": "lacks avxvnni",
        "avx2": "in use",
        "neon-i8mm": "is for aarch64",
        "neon-dotprod": "is for aarch64",
        "portable": "available",
    }
    assert "avx-vnni: lacks avxvnni" in lines
    assert "avx2: in use" in lines


def test_a_forced_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGERT_CPU", "Portable")
    with compiling_for(VNNI):
        result = run("doctor")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "chosen by: EDGERT_CPU=portable" in lines
    assert "portable: in use" in lines
    assert "avx512-vnni: available" in lines


def test_one_that_cannot_be_forced_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGERT_CPU", "avx512-vnni")
    monkeypatch.setenv("EDGERT_MLX_DTYPE", "none")  # nor does another backend run
    with compiling_for(HASWELL):
        result = run("doctor")
    assert result.exit_code == 1
    reason = "EDGERT_CPU=avx512-vnni: this CPU (haswell) has no avx512-vnni; it runs avx2, portable"
    assert f"backend cpu: not available: {reason}" in result.stdout
    assert "avx2: available" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("warmup",),
        ("generate", "TINY", "x"),
        ("generate", "TINY", "x", "--backend", "cpu"),
        ("chat", "TINY"),
        ("serve", "TINY"),
        ("bench", "TINY", "-p", "8", "-n", "8"),
    ],
    ids=" ".join,
)
def test_other_commands_say_it_in_one_line(arguments: tuple[str, ...], tiny_path: Path) -> None:
    given = [str(tiny_path) if argument == "TINY" else argument for argument in arguments]
    result: subprocess.CompletedProcess[str] = process(*given, stdin="x", EDGERT_CPU="sse9")
    assert result.returncode == 70
    assert result.stderr.startswith("edgert: ")
    assert "EDGERT_CPU=sse9 is unknown; this CPU runs " in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.fixture
def few_cases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Self-tests of the first cases only; the backends that were tested."""
    tested: list[str] = []
    whole = self_test.self_test

    def few(name: str, progress: Progress) -> SelfTest:
        result = whole(name, progress, CASES[:3])
        tested.append(result.backend)
        return result

    monkeypatch.setattr(self_test, "self_test", few)
    return tested


def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = {"cpu": Probe(True, gpu=True), "reference": Probe(True), "other": Probe(False, "no device", gpu=True)}
    monkeypatch.setattr("edgert_runtimes.registry.probe_all", lambda: probes)


def test_without_a_gpu_no_self_test_is_run(few_cases: list[str]) -> None:
    reason = "self-test: not run, as no backend here uses a GPU; edgert doctor --self-test runs it all the same"
    assert run("doctor").stdout.splitlines()[-1] == reason
    assert json.loads(run("doctor", "--json").stdout)["self_tests"] == []
    assert "self-test" not in run("doctor", "--no-self-test").stdout
    assert few_cases == []


def test_a_self_test_when_asked(few_cases: list[str]) -> None:
    result = run("doctor", "--self-test")
    assert result.exit_code == 0
    assert "self-test of backend cpu, 3 cases against the reference:" in result.stdout
    (found,) = json.loads(run("doctor", "--self-test", "--backend", "reference", "--json").stdout)["self_tests"]
    assert found["passed"]
    assert found["ops"]["embed"]["cases"] == 3
    assert few_cases == ["cpu", "reference"]


def test_backends_on_gpus_are_tested_unless_told_not_to(monkeypatch: pytest.MonkeyPatch, few_cases: list[str]) -> None:
    with_gpu(monkeypatch)
    assert "self-test of backend cpu" in run("doctor").stdout
    assert few_cases == ["cpu"]
    assert "self-test" not in run("doctor", "--no-self-test").stdout
    assert few_cases == ["cpu"]


def test_a_failed_self_test_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SelfTest("cpu", (), (), "BackendError: the device is gone", 1.0)
    monkeypatch.setattr(self_test, "self_test", lambda name, progress: failed)
    result = run("doctor", "--self-test")
    assert result.exit_code == 1
    assert "    demo model: FAIL, BackendError: the device is gone" in result.stdout


def test_a_backend_that_there_is_not_is_an_error() -> None:
    result = process("doctor", "--self-test", "--backend", "abacus")
    assert result.returncode == 64
    assert result.stderr.startswith("edgert: unknown backend 'abacus'; there are: auto, cpu, ")


def test_a_backend_without_a_self_test_is_an_error() -> None:
    result = process("doctor", "--backend", "cpu")
    assert result.returncode == 64
    assert result.stderr == "edgert: --backend chooses what --self-test tests; give both\n"
