"""Softmax in parts is softmax, also of scores that are not finite."""

import numpy as np
import pytest
from edgert_runtimes.cpu.kernels.softmax import HEADER, finish_part, merge_part, weigh

WIDTH = 20
PART = HEADER + 32


def in_parts(scores: np.ndarray, values: np.ndarray, ends: list[int]) -> np.ndarray:
    """Softmax of scores [n] times values [n, WIDTH], in parts that end at `ends`."""
    total = np.zeros(PART, np.float32)
    start = 0
    for end in ends:
        weights = np.zeros(end - start + 2 * HEADER, np.float32)
        weights[: end - start] = scores[start:end]
        part = np.full(PART, np.nan, np.float32)
        weigh(weights.ctypes.data, end - start, part.ctypes.data, 2, 0, 0)
        assert not part[HEADER:].any()
        assert not weights[end - start : -(-(end - start) // HEADER) * HEADER].any()
        with np.errstate(invalid="ignore"):
            part[HEADER : HEADER + WIDTH] = weights[: end - start] @ values[start:end]
        if start:
            merge_part(total.ctypes.data, part.ctypes.data, 2)
        else:
            total[:] = part
        start = end
    out = np.zeros(WIDTH, np.float32)
    finish_part(total.ctypes.data, out.ctypes.data, WIDTH)
    return out


def expected(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        weights = np.exp(scores.astype(np.float64) - scores.max())
        return (weights / weights.sum()) @ values


@pytest.mark.parametrize("spread", [0.1, 3.0, 300.0])
@pytest.mark.parametrize("ends", [[40], [1, 40], [16, 17, 40], [33, 40]])
def test_parts_are_the_whole(spread: float, ends: list[int]) -> None:
    rng = np.random.default_rng(1)
    scores = (spread * rng.standard_normal(40)).astype(np.float32)
    values = rng.standard_normal((40, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(in_parts(scores, values, ends), expected(scores, values), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("ends", [[40], [10, 40]])
@pytest.mark.parametrize("where", [3, 39])
def test_minus_infinity_weighs_nothing(ends: list[int], where: int) -> None:
    rng = np.random.default_rng(1)
    scores, values = rng.standard_normal(40).astype(np.float32), rng.standard_normal((40, WIDTH)).astype(np.float32)
    scores[where] = -np.inf
    scores[:10] = -np.inf  # a whole part, where there are two
    np.testing.assert_allclose(in_parts(scores, values, ends), expected(scores, values), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("ends", [[40], [10, 40]])
@pytest.mark.parametrize("where", [3, 39])
@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_what_is_not_finite_is_not_hidden(ends: list[int], where: int, score: float) -> None:
    scores, values = np.zeros(40, np.float32), np.ones((40, WIDTH), np.float32)
    scores[where] = score
    assert np.isnan(in_parts(scores, values, ends)).all()
    assert np.isnan(in_parts(np.full(40, -np.inf, np.float32), values, ends)).all()
