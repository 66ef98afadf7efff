"""MXFP4 and the ternary types: what they hold exactly, and the best that they can do."""

from typing import Any

import numpy as np
import pytest
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.blocks.unpack32 import E2M1_VALUES
from gguf.constants import GGMLQuantizationType
from gguf.quants import quantize as gguf_quantize
from numpy.typing import NDArray

from tests.support.ggml import importance, samples

TERNARY = (BlockType.TQ1_0, BlockType.TQ2_0)


@pytest.mark.parametrize("kind", TERNARY, ids=lambda kind: kind.name)
def test_ternary_weights_keep_their_values_and_get_the_usual_bytes(kind: BlockType) -> None:
    random = np.random.RandomState(3)
    d = 2.0 ** random.randint(-8, 3, (16, 1)) * (1 + random.randint(0, 1024, (16, 1)) / 1024)  # in half precision
    x = (random.randint(-1, 2, (16, 768)) * d).astype(np.float32)
    x[3, 256:512] = 0
    x[4, :255] = 0  # one weight that is not 0
    for weights in (None, importance(768)):
        data = quantize(x, kind, importance=weights)
        np.testing.assert_array_equal(dequantize(data, kind), x)
    theirs = gguf_quantize(x, GGMLQuantizationType(int(kind)))
    np.testing.assert_array_equal(quantize(x, kind), theirs.view(np.uint8).reshape(16, -1))


@pytest.mark.parametrize("weighted", [False, True])
def test_both_ternary_types_hold_the_same_weights(weighted: bool) -> None:
    for x in samples(4, 512).values():
        one, two = (
            dequantize(quantize(x, kind, importance=importance(512) if weighted else None), kind) for kind in TERNARY
        )
        np.testing.assert_array_equal(one, two)


def test_the_ternary_scale_is_nearly_the_best() -> None:
    """Against every way to tell zeros from others by magnitude, of which the best has the least squared error."""
    for name in ("gaussian", "laplace", "outliers", "columns"):
        blocks = samples(8, 512)[name].reshape(-1, 256).astype(np.float64)
        size = -np.sort(-np.abs(blocks), axis=1)
        explained = np.cumsum(size, axis=1) ** 2 / np.arange(1, 257)
        least = ((blocks**2).sum(1) - explained.max(1)).sum()
        back = dequantize(quantize(blocks, BlockType.TQ2_0), BlockType.TQ2_0)
        assert ((blocks - back) ** 2).sum() <= least * 1.005


def error(x: NDArray[np.float64], back: NDArray[np.floating[Any]], w: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Of each block."""
    return np.einsum("ij,ij->i", w, (x - back) ** 2)


def mxfp4(x: NDArray[np.float64], power: NDArray[np.int64]) -> NDArray[np.float64]:
    """The nearest values to weights [blocks, 32] with the given exponents [blocks]."""
    values = E2M1_VALUES.astype(np.float64)[None, None] * np.ldexp(0.5, power)[:, None, None]
    return np.take_along_axis(values, np.abs(x[:, :, None] - values).argmin(2)[:, None], axis=2)[:, 0]


@pytest.mark.parametrize("weighted", [False, True])
def test_mxfp4_takes_the_best_exponent(weighted: bool) -> None:
    w: NDArray[np.floating[Any]] = importance(512) if weighted else np.ones(512)
    for name in ("gaussian", "laplace", "outliers", "columns", "small"):
        x = samples(8, 512)[name]
        blocks = x.reshape(-1, 32).astype(np.float64)
        heavy = np.broadcast_to(w, x.shape).reshape(-1, 32)
        usual = np.floor(np.log2(np.abs(blocks).max(1))).astype(np.int64) - 2

        least = np.min([error(blocks, mxfp4(blocks, usual + shift), heavy) for shift in (-1, 0, 1)], axis=0)
        back = dequantize(quantize(x, BlockType.MXFP4, importance=w if weighted else None), BlockType.MXFP4)
        assert (error(blocks, back.reshape(-1, 32), heavy) <= least * (1 + 1e-5)).all()


def test_mxfp4_keeps_what_it_can_hold() -> None:
    """All sixteen values, and exponents from the smallest to nearly the largest weight that is taken."""
    random = np.random.RandomState(4)
    values = E2M1_VALUES[random.randint(0, 16, (64, 32))]
    values[:, 0] = 12
    x = np.ldexp(values, random.randint(-126, 36, (64, 1))).astype(np.float32)
    np.testing.assert_array_equal(dequantize(quantize(x, BlockType.MXFP4), BlockType.MXFP4), x)
