"""Covariances between an expert's and its layer's, and the choice among them."""

import numpy as np
import pytest
from edgert_models.errors import RequestError
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.compensation import (
    Candidate,
    Feedback,
    candidates,
    choose_shrink,
    compensate,
    output_errors,
    shrunk,
)

from tests.quant.compensation.inputs import covariance, weights

KIND = BlockType.Q3_K


def test_shrinking_goes_from_own_to_pool_and_to_the_diagonal() -> None:
    own, pool = covariance(100, 64, seed=1), covariance(1000, 64, seed=2)
    np.testing.assert_array_equal(shrunk(own, pool, 0.0), own)
    scaled = pool * np.trace(own) / np.trace(pool)
    np.testing.assert_allclose(shrunk(own, pool, 1.0), scaled, rtol=1e-12)
    np.testing.assert_allclose(shrunk(own, pool, 0.25), 0.75 * own + 0.25 * scaled, rtol=1e-9)
    np.testing.assert_array_equal(shrunk(own, None, 0.7, 1.0), np.diag(own.diagonal()))
    half = shrunk(own, None, 0.0, 0.5)
    np.testing.assert_array_equal(half.diagonal(), own.diagonal())
    np.testing.assert_allclose(np.triu(half, 1), np.triu(own, 1) / 2)


def test_an_expert_without_tokens_has_its_layers_covariance() -> None:
    pool = covariance(1000, 64)
    np.testing.assert_array_equal(shrunk(np.zeros_like(pool), pool, 0.1), pool)
    np.testing.assert_array_equal(shrunk(pool, np.zeros_like(pool), 0.1), pool)


def test_shrinking_leaves_its_arguments_as_they_are() -> None:
    own, pool = covariance(100, 32), covariance(100, 32, seed=5)
    before = own.copy(), pool.copy()
    shrunk(own, pool, 0.5, 0.5)
    np.testing.assert_array_equal(own, before[0])
    np.testing.assert_array_equal(pool, before[1])


@pytest.mark.parametrize("amounts", [(-0.1, 0.0), (1.1, 0.0), (0.5, 2.0), (np.nan, 0.0)])
def test_amounts_are_shares(amounts: tuple[float, float]) -> None:
    with pytest.raises(RequestError, match=r"(amount|diagonal) is .*; it must be in 0\.\.1"):
        shrunk(np.eye(4), None, *amounts)


def test_the_choice_is_never_worse_on_held_out_tokens() -> None:
    """Of three tokens little can be learned; of many, much."""
    x, held = weights(64, 512), covariance(400, 512, 0.2, seed=9)
    for tokens in (3, 2000):
        tried = candidates(covariance(tokens, 512, 0.2, seed=1), amounts=[(0.0, 0.0), (0.0, 0.5)])
        choice = choose_shrink(x, KIND, tried, held)
        error = output_errors(x - dequantize(choice.data, KIND), held).sum()
        assert choice.error == pytest.approx(error, rel=1e-4)
        assert choice.error <= choice.plain_error
        plain = quantize(x, KIND, importance=tried[0].feedback.importance)
        if choice.amounts is None:
            np.testing.assert_array_equal(choice.data, plain)
        else:
            feedback = next(item.feedback for item in tried if item.amounts == choice.amounts)
            np.testing.assert_array_equal(choice.data, compensate(x, KIND, feedback))


def test_what_suits_the_held_out_tokens_is_chosen() -> None:
    x, right, wrong = weights(32, 256), covariance(2000, 256, 0.6, seed=1), np.diag(np.linspace(1, 30, 256))
    tried = [Candidate((0.0, 1.0), Feedback(wrong)), Candidate((0.0, 0.0), Feedback(right))]
    choice = choose_shrink(x, KIND, tried, right, importance=right.diagonal())
    assert choice.amounts == (0.0, 0.0)
    assert choice.error < 0.8 * choice.plain_error


def test_plain_rounding_wins_ties() -> None:
    x = weights(8, 256)
    choice = choose_shrink(x, KIND, candidates(covariance(100, 256)), np.zeros((256, 256)))
    assert choice.amounts is None
    assert choice.error == choice.plain_error == 0


def test_candidates_with_and_without_a_pool() -> None:
    own = covariance(100, 64)
    assert [item.amounts for item in candidates(own)] == [(0.0, 0.8), (0.0, 0.4)]
    assert [item.amounts for item in candidates(own, own)] == [(0.8, 0.5), (0.5, 0.3)]


def test_what_is_refused() -> None:
    with pytest.raises(RequestError, match="needs at least one candidate"):
        choose_shrink(weights(1, 256), KIND, [], np.eye(256))
    held = np.eye(256)
    held[4, 2] = np.inf
    with pytest.raises(RequestError, match=r"held_out \[4, 2\] is inf; it must be finite"):
        choose_shrink(weights(1, 256), KIND, candidates(np.eye(256)), held)
    with pytest.raises(RequestError, match=r"held_out is of shape \[64, 64\]; the weights have 256 columns"):
        choose_shrink(weights(1, 256), KIND, candidates(np.eye(256)), np.eye(64))
    with pytest.raises(RequestError, match=r"the pool is of shape \[8, 8\], the covariance of \[4, 4\]"):
        shrunk(np.eye(4), np.eye(8), 0.5)
