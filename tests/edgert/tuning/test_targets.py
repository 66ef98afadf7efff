"""The divergence from stored predictions, against its definition."""

import numpy as np
import pytest

from edgert.tuning.targets import Targets


def logits(seed: int, rows: int = 40, vocabulary: int = 300) -> np.ndarray:
    return 3 * np.random.default_rng(seed).standard_normal((rows, vocabulary))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def defined(p: np.ndarray, q: np.ndarray, most: int) -> np.ndarray:
    """By the definition, the bucket last."""
    order = np.argsort(-p, axis=1)[:, :most]
    listed, theirs = np.take_along_axis(p, order, axis=1), np.take_along_axis(q, order, axis=1)
    whole = (listed * np.log(listed / theirs)).sum(axis=1)
    rest, other = 1 - listed.sum(axis=1), 1 - theirs.sum(axis=1)
    rest, other = np.maximum(rest, 1e-15), np.maximum(other, 1e-15)
    return np.asarray(whole + np.where(rest > 1e-12, rest * np.log(rest / other), 0))


@pytest.mark.parametrize("most", [4, 64, 300, 1000])
def test_divergence_is_as_defined(most: int) -> None:
    a, b = logits(0), logits(0) + 0.3 * logits(1)
    found = Targets.of(a.astype(np.float32), most).divergence(b.astype(np.float32))
    assert found == pytest.approx(defined(softmax(a), softmax(b), min(most, 300)), abs=2e-6)


@pytest.mark.parametrize("most", [4, 64, 300])
def test_none_from_itself_and_never_more_than_over_all_tokens(most: int) -> None:
    a, b = logits(2), logits(3)
    targets = Targets.of(a, most)
    assert targets.divergence(a).max() < 1e-5
    assert (targets.divergence(b) <= Targets.of(a, 300).divergence(b) + 1e-5).all()


@pytest.mark.parametrize("most", [4, 300])
def test_the_slope_is_what_finite_differences_show(most: int) -> None:
    a, b = logits(4), logits(5)
    targets, direction = Targets.of(a, most), np.random.default_rng(6).standard_normal(b.shape)
    step = 1e-2
    up, down = (targets.divergence(b + sign * step * direction).mean() for sign in (1, -1))
    assert float((targets.slope(b) * direction).sum()) == pytest.approx((up - down) / (2 * step), rel=2e-2, abs=1e-4)
