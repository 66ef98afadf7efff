"""The self-test of a backend, on a few cases: what it finds, and what it says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import BackendError, RequestError, UnsupportedError
from edgert_runtimes.conformance import CASES, Case
from edgert_runtimes.reference.backend import ReferenceBackend

from edgert import self_test as module
from edgert.cli import self_test_report
from edgert.self_test import SelfTest, self_test

NORMS, ROPES = ([case for case in CASES if case.op == op] for op in ("rms_norm", "rope"))
FEW = [*NORMS[:20], *ROPES[:13]]


class Broken(ReferenceBackend):
    """The reference, but for what `wrong` makes of the results of plans with rope."""

    def __init__(self, wrong: Callable[[np.ndarray], np.ndarray]) -> None:
        self.wrong = wrong

    def load(self, plan: Any, *arguments: Any, **options: Any) -> Any:
        session: Any = super().load(plan, *arguments, **options)
        if any(type(op).__name__ == "Rope" for op in plan.ops):
            step = session.step
            session.step = lambda batch: self.wrong(step(batch))
        return session


def ignore(stage: str, done: int, total: int) -> None:
    """Nobody looks."""


def refuse(y: np.ndarray) -> np.ndarray:
    raise UnsupportedError("rope: not here")


def result_of(backend: Broken, monkeypatch: pytest.MonkeyPatch) -> SelfTest:
    monkeypatch.setattr(module, "get_backend", lambda name: backend)
    return self_test("reference", ignore, FEW)


def test_a_sound_backend_passes() -> None:
    stages: list[tuple[str, int, int]] = []
    result = self_test("cpu", lambda *stage: stages.append(stage), FEW)
    assert result.passed
    assert result.backend == "cpu"
    assert ("self-test", len(FEW) - 1, len(FEW)) in stages
    first, norms, ropes, demo, last = self_test_report.lines(result)
    assert first == "self-test of backend cpu, 33 cases against the reference:"
    assert norms.startswith("    rms_norm: pass, 20 cases, worst error ")
    assert norms.endswith(" where 1.0e-07 is allowed")
    assert ropes.startswith("    rope: pass, 13 cases, worst error ")
    assert demo.startswith("    demo model: pp128 ")
    assert result.how
    assert demo.endswith(f" tokens/s ({result.how})")
    assert last.startswith("    passed in ")
    found = self_test_report.as_json(result)
    assert found["passed"]
    assert found["ops"]["rope"]["cases"] == 13
    assert 0 < found["ops"]["rope"]["error"] < found["ops"]["rope"]["bound"] == 1e-7
    assert found["demo"]["pp128_tokens_per_second"] > 0
    assert found["demo"]["tg32_tokens_per_second"] > 0


def test_a_wrong_op_is_named_with_its_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(Broken(lambda y: y * np.float32(1.001)), monkeypatch)
    assert not result.passed
    lines = list(self_test_report.lines(result))
    assert lines[1].startswith("    rms_norm: pass, 20 cases")
    assert lines[2] == "    rope: FAIL, 13 of 13 cases, worst error 1.0e-06 where 1.0e-07 is allowed"
    assert lines[3] == "        interleaved, 16 of 16: the error is 1.0e-06, at most 1.0e-07 is allowed"
    assert lines[8] == "        and 8 more, which --json names"
    assert lines[-1].startswith("    FAILED in ")
    assert len(self_test_report.as_json(result)["ops"]["rope"]["failures"]) == 13


def test_results_that_are_no_numbers_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(Broken(lambda y: y * np.float32(np.nan)), monkeypatch)
    assert "    rope: FAIL, 13 of 13 cases" in list(self_test_report.lines(result))
    found = self_test_report.as_json(result)["ops"]["rope"]
    assert found["error"] is None
    assert set(found["failures"].values()) == {"the error is nan, at most 1.0e-07 is allowed"}


def test_refusals_are_told_and_no_failures_of_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(Broken(refuse), monkeypatch)
    lines = list(self_test_report.lines(result))
    assert "    rope: pass, 13 cases" in lines
    assert "        refused in 13 cases: rope: not here" in lines
    assert set(self_test_report.as_json(result)["ops"]["rope"]["refusals"].values()) == {"rope: not here"}


def test_a_demo_model_that_does_not_run_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**options: Case) -> None:
        raise BackendError("the device is gone")

    monkeypatch.setattr(module, "LLM", broken)
    result = self_test("reference", ignore, FEW[:1])
    assert not result.passed
    assert "    demo model: FAIL, BackendError: the device is gone" in list(self_test_report.lines(result))
    assert self_test_report.as_json(result)["demo"] == {"error": "BackendError: the device is gone", "how": ""}


def test_unknown_backends_are_refused() -> None:
    with pytest.raises(RequestError, match="unknown backend 'abacus'"):
        self_test("abacus", ignore, FEW)
