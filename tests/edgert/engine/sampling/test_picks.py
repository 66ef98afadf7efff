import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgert.engine.sampling.base import uniform
from edgert.engine.sampling.picks import Mirostat, Mirostat1, weighted
from tests.edgert.engine.sampling.support import candidates, logits_of, rows, softmax64

VOCABULARY = 5000
ZIPF = -1.1 * np.log(np.arange(1, VOCABULARY + 1)).astype(np.float32)


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """As a number of standard deviations above what is expected."""
    expected = probabilities * counts.sum()
    freedom = counts.size - 1
    return float(((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def test_draws_follow_the_distribution() -> None:
    logits = np.random.default_rng(3).normal(0, 1, 60).astype(np.float32)
    counts = np.bincount([weighted(candidates(logits), uniform(5, p)) for p in range(20_000)], minlength=60)
    assert chi_square(counts, softmax64(logits)) < 4
    assert chi_square(counts, softmax64(logits * 0.8)) > 10  # the test can fail


@settings(max_examples=60, deadline=None)
@given(rows(), st.floats(0.1, 12.0))
def test_mirostat_2_cuts_what_surprises_more_than_mu(logits: np.ndarray, mu: float) -> None:
    pick = Mirostat(5.0, 0.1)
    pick.mu = mu
    with np.errstate(divide="ignore"):
        surprises = -np.log2(softmax64(logits))
    surprises[np.abs(surprises - mu) < 1e-4] = np.nan  # either way
    left = set(pick.cut(candidates(logits)).ids.tolist())
    assert set(np.flatnonzero(surprises <= mu).tolist()) <= left
    assert left & set(np.flatnonzero(surprises > mu).tolist()) <= set(np.flatnonzero(logits == logits.max()).tolist())


@settings(max_examples=60, deadline=None)
@given(rows(), st.floats(0.1, 12.0))
def test_mirostat_1_keeps_k(logits: np.ndarray, mu: float) -> None:
    """The formula of the paper (and llama.cpp), as it is written there."""
    pick = Mirostat1(5.0, 0.1, VOCABULARY)
    pick.mu = mu
    found = pick.size(logits)
    top = sorted((float(value) for value in logits if value > -math.inf), reverse=True)[:100]
    t = [math.log((i + 2) / (i + 1)) for i in range(len(top) - 1)]
    b = [top[i] - top[i + 1] for i in range(len(top) - 1)]
    if not sum(b):
        assert found == (1 if len(top) == 1 else logits.size)
        return
    s = sum(x * y for x, y in zip(t, b, strict=True)) / sum(x * x for x in t)
    log_k = math.log((s - 1) * 2**mu / (1 - VOCABULARY ** -(s - 1))) / s
    k = math.exp(log_k) if log_k < 700 else math.inf
    wanted = min(max(1, int(min(k, 1e9))), logits.size)
    assert abs(found - wanted) <= (k % 1 < 1e-6 or k % 1 > 1 - 1e-6)
    assert len(pick.cut(candidates(logits)).ids) == found


@pytest.mark.parametrize("tau", [2.0, 3.0, 5.0])
@pytest.mark.parametrize("version", [1, 2])
def test_surprise_is_kept_near_tau(version: int, tau: float) -> None:
    pick = Mirostat(tau, 0.1) if version == 2 else Mirostat1(tau, 0.1, VOCABULARY)
    limits = []
    for position in range(1500):
        pick(candidates(ZIPF), uniform(1, position))
        limits.append(pick.mu)
    # mu has moved by 0.1 for every bit of every error: if it settles, their mean is 0.
    assert abs(limits[-1] - limits[299]) / (0.1 * 1200) < 0.05
    assert 0 < np.mean(limits[300:]) < 15


def test_the_error_moves_mu() -> None:
    pick = Mirostat(2.0, 0.5)
    assert pick.mu == 4.0
    pick(candidates(logits_of(0.5, 0.5)), 0.1)  # surprise 1, one below
    assert pick.mu == pytest.approx(4.5)


def test_one_token_and_impossible_ones() -> None:
    lone = candidates(np.array([-np.inf, 1.0, -np.inf], dtype=np.float32))
    for pick in (Mirostat(0.0, 1.0), Mirostat1(0.0, 1.0, VOCABULARY)):
        assert [pick(lone, number) for number in (0.0, 0.5, 0.999)] == [1, 1, 1]
