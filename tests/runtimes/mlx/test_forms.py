"""Repacked blocks are the weights they were."""

import numpy as np
import pytest
from edgert_quant.blocks import BlockType, dequantize
from edgert_runtimes.mlx.forms import FORMS, GROUP, pack
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.packed import random_rows

mx = pytest.importorskip("mlx.core", reason="the mlx package is not installed")
pytestmark = pytest.mark.mlx

EXACT = [kind for kind, form in FORMS.items() if form.exact and kind is not BlockType.Q8_K]
ROUNDED = {
    BlockType.Q6_K: 6e-3,
    BlockType.Q3_K: 4e-2,
    BlockType.Q2_K: 4e-2,
    BlockType.IQ3_S: 5e-2,
    BlockType.IQ3_XXS: 6e-2,
    BlockType.IQ2_S: 8e-2,
    BlockType.IQ2_XS: 8e-2,
    BlockType.IQ2_XXS: 4e-2,
    BlockType.IQ1_S: 8e-2,
    BlockType.IQ1_M: 8e-2,
    BlockType.NVFP4: 4e-2,
    BlockType.Q2_0: 1e-6,
    BlockType.Q1_0: 1e-6,
}
"""The relative error that rounding again adds, at most: a fraction of that of the type itself."""


def through_mlx(kind: BlockType, raw: np.ndarray) -> np.ndarray:
    form = FORMS[kind]
    codes, scales, biases = form.split(raw)
    k = raw.shape[1] // kind.block_bytes * kind.block_size
    words = pack(codes.reshape(len(raw), k), form.bits).view(np.uint32)
    parts = [None if part is None else mx.array(part.reshape(len(raw), -1)) for part in (scales, biases)]
    weights = mx.dequantize(mx.array(words), *parts, group_size=GROUP, bits=form.bits, mode=form.mode)
    return np.asarray(weights.astype(mx.float32))


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.name)
@settings(max_examples=20, deadline=None)
@given(rows=st.integers(3, 6), blocks=st.integers(1, 3), extreme=st.booleans(), seed=st.integers(0, 1 << 20))
def test_exact_forms_lose_no_bit(kind: BlockType, rows: int, blocks: int, extreme: bool, seed: int) -> None:
    raw = random_rows(kind, rows, blocks * 256, extreme=extreme, seed=seed)
    np.testing.assert_array_equal(through_mlx(kind, raw), dequantize(raw, kind))


def test_every_packed_type_has_a_form() -> None:
    plain = {kind for kind in BlockType if kind.block_size == 1}
    assert set(FORMS) == set(BlockType) - plain
    assert {kind for kind, form in FORMS.items() if not form.exact} == set(ROUNDED)


@pytest.mark.parametrize(("kind", "bound"), ROUNDED.items(), ids=lambda value: getattr(value, "name", ""))
def test_rounding_again_costs_little(kind: BlockType, bound: float) -> None:
    raw = random_rows(kind, 64, 512)
    found, weights = through_mlx(kind, raw).astype(np.float64), dequantize(raw, kind)
    assert np.linalg.norm(found - weights) <= bound * np.linalg.norm(weights)


def test_integers_with_a_scale_of_their_own() -> None:
    """Q8_K, whose scale is a float32."""
    raw = np.zeros((2, 3 * BlockType.Q8_K.block_bytes), np.uint8)
    raw[:] = np.random.default_rng(1).integers(0, 256, raw.shape)
    raw.reshape(-1, BlockType.Q8_K.block_bytes)[:, :4] = np.array([0.37], np.float32).view(np.uint8)
    np.testing.assert_allclose(through_mlx(BlockType.Q8_K, raw), dequantize(raw, BlockType.Q8_K), rtol=1e-5, atol=1e-5)


@given(st.integers(1, 8), st.data())
@settings(deadline=None)
def test_codes_are_a_stream_of_bits(bits: int, data: st.DataObject) -> None:
    codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=16, max_size=16)), np.uint8)
    stream = np.unpackbits(pack(codes, bits), bitorder="little").reshape(-1, bits)
    np.testing.assert_array_equal((stream << np.arange(bits)).sum(axis=1), codes)
