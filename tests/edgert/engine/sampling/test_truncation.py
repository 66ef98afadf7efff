"""Each step against its definition in float64. Where a border is as near as rounding reaches, nothing is said."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgert.engine.sampling.truncation import MinP, TopK, TopNSigma, TopP, TypicalP, Xtc
from tests.edgert.engine.sampling.support import candidates, logits_of, rows, softmax64

checked = settings(max_examples=80, deadline=None)


def kept(step: object, logits: np.ndarray, position: int = 0) -> list[int]:
    before = logits.copy()
    left = step(candidates(logits), [0] * position)  # type: ignore[operator]
    assert np.array_equal(logits, before)
    assert np.array_equal(left.logits, logits[left.ids])
    return left.ids.tolist()  # type: ignore[no-any-return]


def shortest(ranked: list[int], probabilities: np.ndarray, share: float, *, strictly: bool) -> list[int]:
    heights = np.cumsum(probabilities[ranked])
    assume(np.abs(heights - share).min() > 1e-5)
    reached = heights > share if strictly else heights >= share
    count = int(reached.argmax()) + 1 if reached.any() else len(ranked)
    return sorted(ranked[:count])


@checked
@given(rows(), st.integers(1, 800))
def test_top_k(logits: np.ndarray, k: int) -> None:
    assert kept(TopK(k), logits) == sorted(sorted(range(logits.size), key=lambda i: (-logits[i], i))[:k])


@checked
@given(rows(), st.floats(0.0, 0.999))
def test_top_p(logits: np.ndarray, p: float) -> None:
    ranked = sorted(range(logits.size), key=lambda i: (-logits[i], i))
    assert kept(TopP(p), logits) == shortest(ranked, softmax64(logits), p, strictly=False)


def test_top_p_of_a_large_vocabulary() -> None:
    """So large that it is narrowed first, flat and steep."""
    for spread in (0.0, 0.1, 3.0):
        logits = np.random.default_rng(1).normal(0, spread, 50_000).astype(np.float32)
        ranked = np.argsort(-logits, kind="stable")
        heights = np.cumsum(softmax64(logits)[ranked])
        for p in (0.3, 0.9, 0.9999):
            wanted = set(ranked[: int(np.searchsorted(heights, p)) + 1].tolist())
            assert len(wanted.symmetric_difference(kept(TopP(p), logits))) <= 2e-4 * len(wanted) + 1


def test_nearly_one_keeps_all_but_the_negligible() -> None:
    assert len(kept(TopP(float(np.nextafter(1.0, 0))), np.linspace(0, -5, 300, dtype=np.float32))) >= 299


@checked
@given(rows(), st.floats(0.001, 1.0))
def test_min_p(logits: np.ndarray, p: float) -> None:
    probabilities = softmax64(logits)
    ratios = probabilities / probabilities.max()
    assume(np.abs(ratios[logits < logits.max()] / p - 1).min(initial=1) > 1e-5)
    assert kept(MinP(p), logits) == np.flatnonzero((ratios >= p) | (logits == logits.max())).tolist()


@checked
@given(rows(), st.floats(0.01, 0.99))
def test_typical_p(logits: np.ndarray, p: float) -> None:
    probabilities = softmax64(logits)
    with np.errstate(divide="ignore"):
        surprises = -np.log(probabilities)
    there = probabilities > 0
    entropy = (probabilities[there] * surprises[there]).sum()
    distances = np.abs(surprises - entropy)
    ranked = sorted(range(logits.size), key=lambda i: (distances[i], i))
    # Different logits that are equally far from the entropy are told apart by rounding only.
    finite = [i for i in ranked if there[i]]
    gaps = np.diff(distances[finite])
    assume(gaps[np.diff(logits[finite]) != 0].min(initial=1) > 1e-4)
    assert kept(TypicalP(p), logits) == shortest(ranked, probabilities, p, strictly=True)


def test_typical_p_keeps_what_surprises_as_expected() -> None:
    # Entropy of (0.9, 0.05, 0.05) is 0.394 nats: surprise 0.105 is nearer to it than 2.996, so the first comes first;
    # of (0.4, 0.3, 0.2, 0.1) it is 1.280, nearest to the surprise 1.204 of the second token.
    assert kept(TypicalP(0.5), logits_of(0.9, 0.05, 0.05)) == [0]
    assert kept(TypicalP(0.25), logits_of(0.4, 0.3, 0.2, 0.1)) == [1]


@checked
@given(rows(), st.floats(0.01, 4.0))
def test_top_n_sigma(logits: np.ndarray, n: float) -> None:
    there = logits[logits > -np.inf].astype(np.float64)
    border = there.max() - n * there.std()
    assume(np.abs(there[there < there.max()] - border).min(initial=1) > 1e-4)
    assert kept(TopNSigma(n), logits) == np.flatnonzero((logits >= border) | (logits == logits.max())).tolist()


@checked
@given(rows(), st.floats(0.001, 0.5))
def test_xtc(logits: np.ndarray, threshold: float) -> None:
    probabilities = softmax64(logits)
    assume(np.abs(probabilities / threshold - 1).min() > 1e-4)
    ranked = sorted(range(logits.size), key=lambda i: (-logits[i], i))
    top = [i for i in ranked if probabilities[i] >= threshold]
    wanted = sorted(set(range(logits.size)) - set(top[:-1]))
    assert kept(Xtc(1.0, threshold, seed=0), logits) == wanted


def test_xtc_happens_as_often_as_it_should() -> None:
    logits = logits_of(0.4, 0.3, 0.2, 0.1)
    for probability in (0.0, 0.3, 1.0):
        step = Xtc(probability, 0.15, seed=9)
        cut = [kept(step, logits, position) for position in range(2000)]
        assert all(left in ([0, 1, 2, 3], [2, 3]) for left in cut)
        assert sum(left == [2, 3] for left in cut) / 2000 == pytest.approx(probability, abs=0.04)
    again = Xtc(0.3, 0.15, seed=9)
    assert [kept(again, logits, p) for p in range(50)] == [kept(Xtc(0.3, 0.15, seed=9), logits, p) for p in range(50)]


def test_one_candidate_is_always_left() -> None:
    logits = np.array([-math.inf, 2.0, -math.inf], dtype=np.float32)
    for step in (TopNSigma(0.1), TopK(1), TypicalP(0.01), TopP(0.0), MinP(1.0), Xtc(1.0, 0.1, seed=0)):
        assert 1 in kept(step, logits)
