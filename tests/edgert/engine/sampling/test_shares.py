import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgert.engine.sampling.shares import entropy, fewest, likeliest, place_at, softmax
from tests.edgert.engine.sampling.support import rows, softmax64


def test_likeliest_takes_the_lower_ids_of_equals() -> None:
    logits = np.array([1, 2, 2, 2, 2, 0], dtype=np.float32)
    assert likeliest(logits, 2).tolist() == [1, 2]
    assert likeliest(logits, 5).tolist() == [0, 1, 2, 3, 4]
    assert likeliest(logits, 0).tolist() == []


@settings(max_examples=100, deadline=None)
@given(rows(most=9000), st.integers(1, 120))
def test_likeliest_is_the_head_of_a_sort(logits: np.ndarray, count: int) -> None:
    assert likeliest(logits, count).tolist() == sorted(np.argsort(-logits, kind="stable")[:count].tolist())


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12000), st.integers(0, 2**32), st.floats(0.1, 30), st.floats(0.01, 0.99), st.booleans())
def test_a_cut_keeps_exactly_the_fewest(size: int, seed: int, spread: float, share: float, strictly: bool) -> None:
    generator = np.random.default_rng(seed)
    order = np.round(generator.normal(0, spread, size), 1).astype(np.float32)  # rounded: there are equals
    probabilities = (generator.random(size) + 1e-3).astype(np.float32)
    probabilities /= probabilities.sum()
    ranked = sorted(range(size), key=lambda i: (-order[i], i))
    heights = np.cumsum(probabilities[ranked], dtype=np.float64)
    if np.abs(heights - share).min() > 1e-9:
        count = int((heights < share).sum()) + 1
        assert fewest(probabilities, order, share, strictly=strictly).tolist() == sorted(ranked[:count])


@settings(max_examples=60, deadline=None)
@given(rows())
def test_softmax_and_entropy(logits: np.ndarray) -> None:
    wanted = softmax64(logits)
    assert softmax(logits) == pytest.approx(wanted, rel=1e-4, abs=1e-9)
    there = wanted[wanted > 0]
    assert entropy(softmax(logits)) == pytest.approx(-(there * np.log(there)).sum(), rel=1e-4, abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(rows(most=3000), st.floats(0, 1, exclude_max=True))
def test_a_place_is_where_the_running_sum_passes_the_number(logits: np.ndarray, number: float) -> None:
    weights = np.exp(logits - logits.max())
    heights = np.cumsum(weights, dtype=np.float64)
    place = place_at(weights, number)
    assert weights[place] > 0
    slack = 1e-6 * heights[-1]  # sums are of float32
    assert heights[place] - weights[place] - slack <= number * heights[-1] <= heights[place] + slack


def test_the_ends_of_the_row_can_be_drawn_and_what_is_impossible_cannot() -> None:
    weights = np.array([0, 1, 0, 1, 0, 0], dtype=np.float32)
    assert [place_at(weights, number) for number in (0.0, 0.4999, 0.5, 1 - 2**-53)] == [1, 1, 3, 3]
