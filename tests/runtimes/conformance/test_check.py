"""That a case tells a wrong result from a right one, and what is reported of either."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import BackendError, UnsupportedError
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import LoadedWeight
from edgert_runtimes.conformance import CASES, check, compare
from edgert_runtimes.reference.backend import ReferenceBackend

(FLOAT,) = (case for case in CASES if str(case) == "linear: F32, 2 rows of 512 to 17")


class Changed(ReferenceBackend):
    """The reference with changed results, and with changes to what it says of loading."""

    def __init__(self, change: Callable[[np.ndarray], np.ndarray] = lambda y: y, **report: Any) -> None:
        self.change = change
        self.changes = report

    def load(self, *arguments: Any, **options: Any) -> Any:
        session: Any = super().load(*arguments, **options)
        step = session.step
        session.step = lambda batch: self.change(step(batch))
        session.report = replace(session.report, **self.changes)
        return session


class Failing(ReferenceBackend):
    """Raises at load."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def load(self, *arguments: Any, **options: Any) -> Any:
        raise self.error


def far(y: np.ndarray, error: float = 1e-6) -> np.ndarray:
    """A result with this normalized squared error."""
    return (y * np.float32(1 + error**0.5)).astype(np.float32)


def test_the_reference_agrees_with_itself() -> None:
    outcome = check(ReferenceBackend(), FLOAT)
    assert (outcome.error, outcome.bound, outcome.failed, outcome.refused) == (0, 1e-7, False, False)


def test_wrong_results_fail() -> None:
    outcome = check(Changed(far), FLOAT)
    assert outcome.failed
    assert outcome.reason == "the error is 1.0e-06, at most 1.0e-07 is allowed"
    assert check(Changed(lambda y: np.full_like(y, np.nan)), FLOAT).failed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y.astype(np.float64), r"the result is float64 \[2, 17\], not float32 \[2, 17\]"),
        (lambda y: y[:1], r"the result is float32 \[1, 17\], not float32 \[2, 17\]"),
    ],
)
def test_other_shapes_and_types_fail(change: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(Changed(change), FLOAT)


def test_bounds_follow_what_the_backend_says_of_itself() -> None:
    assert not check(Changed(far, precision="float16"), FLOAT).failed
    assert check(Changed(lambda y: far(y, 1e-4), precision="float16"), FLOAT).failed
    assert not check(Changed(lambda y: far(y, 1e-4), precision="bfloat16"), FLOAT).failed

    def inexact(error: float) -> Changed:
        weight = LoadedWeight("w.weight", BlockType.Q3_K, "affine, 5 bits", 0, error=error)
        return Changed(lambda y: far(y, 1e-3), weights=(weight,))

    assert check(inexact(1e-5), FLOAT).failed
    assert not check(inexact(1e-3), FLOAT).failed


def test_refusals_are_no_failures() -> None:
    outcome = check(Failing(UnsupportedError("tensor w: no such thing")), FLOAT)
    assert (outcome.refused, outcome.failed, outcome.reason) == (True, False, "tensor w: no such thing")


@pytest.mark.parametrize("error", [BackendError("the device is gone"), RuntimeError("compiler: line 3")])
def test_whatever_else_is_raised_is_one(error: Exception) -> None:
    outcome = check(Failing(error), FLOAT)
    assert outcome.failed
    assert outcome.reason == f"{type(error).__name__}: {error}"
