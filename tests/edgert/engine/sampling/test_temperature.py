import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgert.engine.sampling.shares import softmax
from edgert.engine.sampling.temperature import DynamicTemperature, Temperature
from tests.edgert.engine.sampling.support import candidates, rows, softmax64


def test_zero_takes_the_lowest_of_equals() -> None:
    left = Temperature(0.0)(candidates(np.array([1.0, 3.0, 3.0, 2.0], dtype=np.float32)), [])
    assert left.ids.tolist() == [1]


@settings(max_examples=60, deadline=None)
@given(rows(), st.floats(0.05, 20.0))
def test_logits_are_divided(logits: np.ndarray, temperature: float) -> None:
    found = softmax(Temperature(temperature)(candidates(logits), []).logits)
    wanted = softmax64(logits.astype(np.float64) / temperature)  # type: ignore[arg-type]
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-7)


def test_nothing_overflows() -> None:
    logits = np.array([700.0, 600.0, -1e30], dtype=np.float32)
    assert softmax(Temperature(1e-30)(candidates(logits), []).logits).tolist() == [1.0, 0.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(rows(), st.floats(0.0, 2.0), st.floats(0.1, 2.0), st.floats(0.1, 4.0))
def test_dynamic(logits: np.ndarray, low: float, reach: float, exponent: float) -> None:
    probabilities = softmax64(logits)
    there = probabilities[probabilities > 0]
    spread = -(there * np.log(there)).sum() / math.log(max(logits.size, 2))
    temperature = low + reach * spread**exponent
    left = DynamicTemperature(low, low + reach, exponent)(candidates(logits), [])
    if temperature > 0.05 and logits.size > 1:
        wanted = softmax64(logits.astype(np.float64) / temperature)  # type: ignore[arg-type]
        assert softmax(left.logits) == pytest.approx(wanted, rel=5e-3, abs=1e-6)


def test_the_ends_of_the_range() -> None:
    flat = np.zeros(16, dtype=np.float32)
    flat[0] = 1e-3
    sure = np.array([0.0, 90.0, 0.0], dtype=np.float32)
    step = DynamicTemperature(0.0, 2.0, 1.0)
    assert step(candidates(flat), []).logits[1] == pytest.approx(-1e-3 / 2, rel=1e-3)
    assert step(candidates(sure), []).ids[0] == 1 or softmax(step(candidates(sure), []).logits)[1] == 1.0
