"""The stored inputs, against their definition."""

import numpy as np
import pytest
from edgert_runtimes.cpu.formats import activation

from tests.support.packed import decode_activations, decode_codes, split_super_blocks


def stored(name: str, x: np.ndarray) -> np.ndarray:
    kind = activation(name)
    out = np.zeros((1, kind.bytes(len(x)) + 8), np.uint8)
    kind.quantize(x.ctypes.data, out.ctypes.data, len(x))
    assert not out[0, -8:].any(), "the kernel wrote behind its outputs"
    return out[:, :-8]


NAMES = ["q8", "q8w"]
LEVELS = 127
SUPER_NAMES = ["q8k", "q8kw"]


@pytest.mark.parametrize("name", NAMES)
def test_codes_scales_and_sums(name: str) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((40, 32)) * 10.0 ** rng.uniform(-20, 20, (40, 1))).astype(np.float32)
    x[3] = 0
    x[4, 5:] = 0
    data = stored(name, x.reshape(-1))
    values = decode_activations(activation(name), data, x.size).reshape(x.shape)
    largest = np.abs(x).max(axis=1, keepdims=True).astype(np.float64)
    assert np.all(np.abs(values - x) <= largest * (0.5 / LEVELS + 2e-7))
    np.testing.assert_allclose(np.abs(values).max(axis=1, keepdims=True), largest, rtol=2e-7)
    blocks = data.reshape(40, -1)
    whole = decode_codes(name, blocks[:, :-20])
    assert np.abs(whole).max() == LEVELS
    tail = np.ascontiguousarray(blocks[:, -20:])
    scale, scaled_sum = tail[:, :8].view(np.float32).T
    total, first, second = tail[:, 8:].view(np.int32).T
    np.testing.assert_array_equal(total, -whole.sum(axis=1))
    np.testing.assert_array_equal(first, -whole[:, :16].sum(axis=1))
    np.testing.assert_array_equal(second, -whole[:, 16:].sum(axis=1))
    np.testing.assert_array_equal(scaled_sum, scale * total.astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_tiny_inputs_are_zeros_and_huge_ones_survive(name: str) -> None:
    x = np.full(64, 1e-38, np.float32)
    x[32:] = np.float32(3e38)
    values = decode_activations(activation(name), stored(name, x), 64)[0]
    assert not values[:32].any()
    np.testing.assert_allclose(values[32:], x[32:].astype(np.float64), rtol=2e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_no_number_makes_its_block_nan(name: str, bad: float) -> None:
    x = np.ones(96, np.float32)
    x[40] = bad
    values = decode_activations(activation(name), stored(name, x), 96)[0]
    assert np.isnan(values[32:64]).all()
    np.testing.assert_allclose(values[:32], 1, rtol=2e-7)
    np.testing.assert_allclose(values[64:], 1, rtol=2e-7)


def test_rounding_is_to_even() -> None:
    x = np.zeros(32, np.float32)
    x[:6] = (127, 0.5, 1.5, 2.5, -0.5, -1.5)
    assert stored("q8", x)[0, :6].view(np.int8).tolist() == [127, 0, 2, 2, 0, -2]


def test_floats_are_copied() -> None:
    x = np.random.default_rng(0).standard_normal(33).astype(np.float32)
    assert activation("f32").direct
    np.testing.assert_array_equal(stored("f32", x).view(np.float32)[0], x)


@pytest.mark.parametrize("name", SUPER_NAMES)
def test_super_blocks(name: str) -> None:
    """Inputs of very different size side by side: 32 of them lose no more than a sixteenth of the block's step."""
    rng = np.random.default_rng(0)
    x = (
        rng.standard_normal((40, 8, 32))
        * 10.0 ** rng.uniform(-2, 2, (40, 8, 1))
        * 10.0 ** rng.uniform(-20, 20, (40, 1, 1))
    )
    x = x.astype(np.float32)
    x[3] = 0
    x[4, 5:] = 0
    x[5, 2] = x[5].max() * 1e-9
    data = stored(name, x.reshape(-1))
    values = decode_activations(activation(name), data, x.size).reshape(x.shape)
    largest = np.abs(x).max(axis=2, keepdims=True).astype(np.float64)
    whole = largest.max(axis=1, keepdims=True)
    assert np.all(np.abs(values - x) <= 0.5 / 127 * (1 + 1e-5) * np.maximum(largest, 0) + whole * (0.5 / 127 / 16))
    codes, tail, scale = split_super_blocks(name, data)
    halves = codes.reshape(40, 8, 2, 16)
    assert np.abs(codes).max() == 127
    steps = tail[:, :16:2]
    assert steps.min() == 1
    assert steps.max() == 16
    assert (steps[np.arange(40), largest[:, :, 0].argmax(axis=1)] == np.where(whole[:, 0, 0] > 0, 16, 1)).all()
    np.testing.assert_array_equal(tail[:, 1:16:2], steps)
    np.testing.assert_array_equal(tail[:, 48:], steps)
    sums = -steps[:, :, None].astype(np.int64) * halves.sum(axis=3)
    np.testing.assert_array_equal(tail[:, 16:32], sums.reshape(40, 16))
    np.testing.assert_array_equal(tail[:, 32:48], sums.transpose(0, 2, 1).reshape(40, 16))
    np.testing.assert_allclose(scale, whole[:, 0, 0] / (127 * 16), rtol=2e-7)


@pytest.mark.parametrize("name", SUPER_NAMES)
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_no_number_makes_its_super_block_nan(name: str, bad: float) -> None:
    x = np.ones(768, np.float32)
    x[300] = bad
    x[512:] = np.float32(3e38)
    values = decode_activations(activation(name), stored(name, x), 768)[0]
    assert np.isnan(values[256:512]).all()
    np.testing.assert_allclose(values[:256], 1, rtol=2e-7)
    np.testing.assert_allclose(values[512:], x[512:].astype(np.float64), rtol=2e-7)
    assert not decode_activations(activation(name), stored(name, np.full(256, 1e-38, np.float32)), 256).any()
