import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgert.engine.sampling.base import Candidates
from edgert.engine.sampling.penalties import Penalties
from tests.edgert.engine.sampling.support import candidates


def after(tokens: list[int], logits: list[float], **strengths: float) -> list[float]:
    options = {"repetition": 1.0, "frequency": 0.0, "presence": 0.0, "last_n": 64, **strengths}
    step = Penalties(**options)  # type: ignore[arg-type]
    return step(candidates(np.array(logits, dtype=np.float32)), tokens).logits.tolist()


def test_repetition_divides_positive_and_multiplies_negative_logits() -> None:
    assert after([0, 1, 1], [4.0, -4.0, 1.0, 3.0], repetition=2.0) == [2.0, -8.0, 1.0, 3.0]


def test_frequency_counts_and_presence_does_not() -> None:
    assert after([1, 1, 1, 2], [0.0] * 4, frequency=0.5, presence=0.25) == [0.0, -1.75, -0.75, 0.0]


@pytest.mark.parametrize(("last_n", "penalised"), [(1, [3]), (2, [2, 3]), (-1, [0, 1, 2, 3]), (64, [0, 1, 2, 3])])
def test_the_last_n(last_n: int, penalised: list[int]) -> None:
    assert np.flatnonzero(after([0, 1, 2, 3], [0.0] * 5, presence=1.0, last_n=last_n)).tolist() == penalised


def test_only_what_is_left_is_changed() -> None:
    left = Candidates(np.array([1, 3]), np.zeros(2, dtype=np.float32))
    assert Penalties(1.0, 0.0, 1.0, -1)(left, [0, 3, 7]).logits.tolist() == [0.0, -1.0]
    assert left.logits.tolist() == [0.0, 0.0]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.integers(0, 40),
    st.integers(-1, 12).filter(bool),
    st.floats(0.5, 2),
    st.floats(-2, 2),
    st.floats(-2, 2),
)
def test_step_by_step_is_as_the_plain_definition(
    tokens: list[int], prompt: int, last_n: int, repetition: float, frequency: float, presence: float
) -> None:
    step = Penalties(repetition, frequency, presence, last_n)
    logits = np.linspace(-3, 3, 10, dtype=np.float32)
    for end in range(min(prompt, len(tokens)), len(tokens) + 1):
        recent = tokens[max(0, end - last_n) : end] if last_n > 0 else tokens[:end]
        wanted = logits.astype(np.float64)
        for token in set(recent):
            wanted[token] = wanted[token] * repetition if wanted[token] <= 0 else wanted[token] / repetition
            wanted[token] -= recent.count(token) * frequency + presence
        assert step(candidates(logits), tokens[:end]).logits == pytest.approx(wanted, abs=1e-4)
