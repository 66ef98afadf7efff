"""Compensated rounding: its objective, its bytes against an exact GPTQ, and what it refuses."""

import numpy as np
import pytest
from edgert_models.errors import ConversionError, RequestError
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.blocks.quantizer import writable_types
from edgert_quant.compensation import Feedback, compensate, output_errors
from edgert_quant.compensation.grids import GRIDS, Grid, put_together, take_apart
from edgert_quant.compensation.kernels import round_panel
from edgert_quant.compensation.rounding import kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.quant.compensation.inputs import Doubles, Floats, covariance, weights

TYPES = [kind for kind in writable_types() if kind.block_size > 1]
each = pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)


def objective(x: Floats, data: NDArray[np.uint8], kind: BlockType, h: Doubles) -> float:
    return float(output_errors((x - dequantize(data, kind)).astype(np.float64), h).sum())


@each
@pytest.mark.parametrize(("decay", "most"), [(0.0, 0.97), (0.7, 0.6)], ids=["weak", "strong"])
def test_outputs_are_nearer_than_by_plain_rounding(kind: BlockType, decay: float, most: float) -> None:
    x, h = weights(24, 512), covariance(1024, 512, decay)
    plain = quantize(x, kind, importance=h.diagonal())
    found = compensate(x, kind, h)
    assert found.shape == plain.shape
    if kind not in GRIDS:  # errors are only passed on from panel to panel
        most = (1 + most) / 2
    assert objective(x, found, kind, h) < most * objective(x, plain, kind, h)


@pytest.mark.parametrize("kind", [BlockType.Q2_K, BlockType.IQ4_NL], ids=lambda kind: kind.name)
def test_types_without_a_grid_are_compensated_by_quantize_alone(
    kind: BlockType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As types are whose codes stand for several weights."""
    x, h = weights(24, 512), covariance(1024, 512)
    known = objective(x, compensate(x, kind, h), kind, h)
    monkeypatch.delitem(GRIDS, kind)
    alone = objective(x, compensate(x, kind, h), kind, h)
    assert known < alone < 0.75 * objective(x, quantize(x, kind, importance=h.diagonal()), kind, h)


@each
def test_without_correlation_no_row_is_worse(kind: BlockType) -> None:
    x = weights(16, 512)
    plain = quantize(x, kind, importance=np.ones(512))
    errors = [((x - dequantize(data, kind)) ** 2).sum(axis=1) for data in (compensate(x, kind, np.eye(512)), plain)]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all()


def gptq(x: Floats, h: Doubles, step: Doubles, floor: Doubles, grid: Grid) -> NDArray[np.uint8]:
    """Codes by the method as it is published: column by column, what remains is updated by the inverse of H."""
    w, codes = x.astype(np.float64), np.zeros(x.shape, np.uint8)
    inverse = np.linalg.inv(h)
    values = np.array(grid.values, np.float64)
    for j in range(x.shape[1]):
        reached = step[:, j, None] * values - floor[:, j, None]
        codes[:, j] = np.abs(reached - w[:, j, None]).argmin(axis=1)
        error = w[:, j] - np.take_along_axis(reached, codes[:, j, None].astype(np.intp), axis=1)[:, 0]
        w -= error[:, None] * inverse[j] / inverse[j, j]
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
        inverse[j] = inverse[:, j] = 0
        inverse[j, j] = 1  # done: its weight stays
    return codes


@pytest.mark.parametrize("kind", list(GRIDS), ids=lambda kind: kind.name)
def test_codes_are_those_of_an_exact_gptq(kind: BlockType) -> None:
    size, grid = kind.block_size, GRIDS[kind]
    x, h = weights(8, size, 3), covariance(2 * size, size)
    feedback = Feedback(h)
    parts = take_apart(quantize(x, kind), kind)
    step, floor = (np.repeat(parts.units[:, i, None] * parts.integers[:, i], grid.length, axis=1) for i in range(2))
    expected = gptq(x, feedback.covariance.astype(np.float64), step, floor, grid)
    errors = np.empty_like(x)
    addresses = [array.ctypes.data for array in (errors, parts.units, parts.integers, parts.codes)]
    round_panel(
        8, size, size, grid.length, x.ctypes.data, feedback.factor.ctypes.data, size, *addresses, *grid.addresses()
    )
    # a weight in the middle of two values may go either way in float32, and then all after it may differ
    same = (parts.codes == expected).all(axis=1)
    assert same.mean() >= 0.75
    np.testing.assert_allclose(errors, x - parts.weights(kind), atol=1e-9)
    back = dequantize(put_together(parts, kind), kind)
    np.testing.assert_allclose(back[same], (step * np.array(grid.values)[expected] - floor)[same], rtol=1e-5, atol=1e-8)


@given(
    st.sampled_from([BlockType.Q4_0, BlockType.Q5_1, BlockType.IQ4_NL, BlockType.Q3_K]),
    st.integers(1, 70),
    st.integers(1, 3),
    st.floats(0, 2),
    st.integers(0, 1000),
)
@settings(max_examples=20, deadline=None)
def test_no_row_is_worse_in_any_shape(kind: BlockType, rows: int, blocks: int, decay: float, seed: int) -> None:
    n = blocks * kind.block_size
    x, feedback = weights(rows, n, seed), Feedback(covariance(n // 2, n, decay, seed))
    plain = quantize(x, kind, importance=feedback.importance)
    found = compensate(x, kind, feedback)
    errors = [feedback.errors(x - dequantize(data, kind)) for data in (found, plain)]
    assert (errors[0] <= errors[1]).all()


@pytest.mark.parametrize("kind", [BlockType.Q2_K, BlockType.Q6_K, BlockType.Q4_1], ids=lambda kind: kind.name)
def test_threads_change_nothing(kind: BlockType) -> None:
    x, feedback = weights(150, 512), Feedback(covariance(512, 512))
    one, three = (compensate(x, kind, feedback, threads=threads) for threads in (1, 3))
    np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_scale_of_a_covariance_does_not_matter(factor: float) -> None:
    x, h = weights(8, 256), covariance(512, 256)
    found = [compensate(x, BlockType.Q4_K, matrix) for matrix in (h, (h * factor))]
    assert objective(x, found[1], BlockType.Q4_K, h) == pytest.approx(
        objective(x, found[0], BlockType.Q4_K, h), rel=0.01
    )


@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_columns_without_inputs_are_rounded_alone(damping: float) -> None:
    x, h = weights(8, 512), covariance(1024, 512)
    dead = [3, 256, 300, 511]
    h[dead] = h[:, dead] = 0
    found = compensate(x, BlockType.Q4_0, h, damping=damping)
    plain = quantize(x, BlockType.Q4_0, importance=h.diagonal())
    assert objective(x, found, BlockType.Q4_0, h) < 0.8 * objective(x, plain, BlockType.Q4_0, h)
    assert np.abs(x - dequantize(found, BlockType.Q4_0))[:, dead].max() < 0.02


def test_no_inputs_at_all_is_plain_rounding() -> None:
    x = weights(8, 256)
    found = compensate(x, BlockType.Q4_K, np.zeros((256, 256)))
    errors = [((x - dequantize(data, BlockType.Q4_K)) ** 2).sum() for data in (found, quantize(x, BlockType.Q4_K))]
    assert errors[0] <= errors[1] * (1 + 1e-5)


def test_few_tokens_and_large_weights() -> None:
    x = weights(8, 512) * np.float32(1e5)
    x[:, 7] *= 10
    h = covariance(3, 512)
    for kind in (BlockType.Q4_K, BlockType.Q8_0, BlockType.IQ4_NL):
        assert objective(x, compensate(x, kind, h), kind, h) < objective(x, quantize(x, kind), kind, h)


def test_plain_types_ignore_the_covariance() -> None:
    x = weights(3, 64)
    np.testing.assert_array_equal(compensate(x, BlockType.BF16, np.eye(64)), quantize(x, BlockType.BF16))


def test_kernels_are_known_ahead() -> None:
    assert {item.name for item in kernels()} == {"compensation.round_panel", "compensation.descend"}


def test_importance_may_be_given() -> None:
    x, h = weights(40, 256), covariance(512, 256)
    importance = np.random.default_rng(0).exponential(size=x.shape)
    found = compensate(x, BlockType.Q3_K, h, importance=importance)
    assert objective(x, found, BlockType.Q3_K, h) < objective(x, quantize(x, BlockType.Q3_K), BlockType.Q3_K, h)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((3, 5), np.nan, r"covariance \[3, 5\] is nan; it must be finite"),
        ((2, 2), -1.0, r"covariance \[2, 2\] is -1; a mean square is not negative"),
        ((0, 9), 5.0, r"covariance \[0, 9\] is 5 but \[9, 0\] is 0; it must be symmetric"),
    ],
)
def test_faults_of_a_covariance_are_named(place: tuple[int, int], value: float, message: str) -> None:
    h = np.eye(32)
    h[place] = value
    with pytest.raises(ConversionError, match=message):
        Feedback(h)


def test_a_covariance_that_is_none() -> None:
    h = np.full((32, 32), -1.0)
    np.fill_diagonal(h, 1.0)
    with pytest.raises(
        ConversionError, match=r"not positive definite, damped by 0\.01 of its mean diagonal; raise the"
    ):
        Feedback(h)
    with pytest.raises(RequestError, match=r"a covariance is a square matrix, not of shape \[32, 16\]"):
        Feedback(h[:, :16])
    with pytest.raises(RequestError, match="damping is -1; it must be finite and not negative"):
        Feedback(h, damping=-1)


def test_what_else_is_refused() -> None:
    x = weights(4, 256)
    with pytest.raises(RequestError, match="the covariance is of 128 inputs, the weights have 256"):
        compensate(x, BlockType.Q4_K, np.eye(128))
    with pytest.raises(RequestError, match=r"compensate takes a matrix of weights, not the shape \[256\]"):
        compensate(x[0], BlockType.Q4_K, np.eye(256))
    x[2, 5] = np.inf
    with pytest.raises(ConversionError, match="weight 517 is inf"):
        compensate(x, BlockType.Q4_K, np.eye(256))
