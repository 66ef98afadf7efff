import os
import platform
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from edgert_models.errors import ConversionError, RequestError, UnsupportedError
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.blocks.quantizer import PIECE_WEIGHTS, kernels
from gguf.constants import GGMLQuantizationType
from gguf.quants import quantize as gguf_quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.support.ggml import TYPES, error, importance, samples

PLAIN = (BlockType.F32, BlockType.F16, BlockType.BF16)
LEVELS = {
    "IQ1_M": 2,
    "IQ1_S": 2,
    "IQ2_S": 4,
    "IQ2_XS": 4,
    "IQ2_XXS": 4,
    "IQ3_S": 10,
    "IQ3_XXS": 10,
    "IQ4_NL": 9,  # the widest steps of its table
    "IQ4_XS": 9,
    "MXFP4": 6,  # as if it had the widest steps everywhere
    "Q2_K": 3,
    "Q3_K": 7,
    "Q4_0": 15,
    "Q4_1": 15,
    "Q5_0": 31,
    "Q5_1": 31,
    "Q8_0": 254,
    "Q4_K": 15,
    "Q5_K": 31,
    "Q6_K": 63,
    "TQ1_0": 2,
    "TQ2_0": 2,
}
ROUGH = {
    "IQ1_M": 0.45,
    "IQ1_S": 0.48,
    "IQ2_S": 0.27,
    "IQ2_XS": 0.32,
    "IQ2_XXS": 0.36,
    "IQ3_S": 0.15,
    "IQ3_XXS": 0.2,
    "Q2_K": 0.3,
    "Q3_K": 0.16,
    "TQ1_0": 0.45,
    "TQ2_0": 0.45,
}
"""Errors of normally distributed weights in types of few bits, as shares of their rms."""
each = pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)


def normal(rows: int, columns: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


@pytest.mark.parametrize("kind", [BlockType.BF16, BlockType.F16, BlockType.F32], ids=lambda k: k.name)
def test_bytes_equal_gguf_py(kind: BlockType) -> None:
    x = normal(17, 320) * np.exp(normal(17, 320, 1) * 2)
    x[3, 64:96] = 0
    x[4, :32] = np.arange(32) - 15.5  # many ties
    theirs = gguf_quantize(x, GGMLQuantizationType(int(kind)))
    np.testing.assert_array_equal(quantize(x, kind), theirs.view(np.uint8).reshape(17, -1))


def test_bfloat16_rounds_to_even() -> None:
    bits = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0xBF818000], np.uint32)
    assert quantize(bits.view(np.float32), BlockType.BF16).view("<u2").tolist() == [
        0x3F80,
        0x3F80,
        0x3F82,
        0x3F81,
        0xBF82,
    ]


@each
@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.just(256)), elements=st.floats(-1000, 1000, width=32)))
@settings(max_examples=25, deadline=None)
def test_any_weights_come_back_within_a_step(kind: BlockType, x: NDArray[np.float32]) -> None:
    """The rms error of a block is at most that of the plainest grid over its range."""
    y = dequantize(quantize(x, kind), kind).astype(np.float64)
    size = kind.block_size
    blocks, back = x.reshape(-1, size).astype(np.float64), y.reshape(-1, size)
    reach = np.maximum(blocks.max(1), 0) - np.minimum(blocks.min(1), 0)
    step = 2 * reach / LEVELS[kind.name]
    assert (np.sqrt(((blocks - back) ** 2).mean(1)) <= step + 1e-5).all()


@each
def test_zero_and_constant_rows(kind: BlockType) -> None:
    zero = quantize(np.zeros((3, 512), np.float32), kind)
    assert not dequantize(zero, kind).any()
    for value in (1.0, -0.37, 1e4):
        row = np.full((1, 512), value, np.float32)
        near = 0.2 if kind is BlockType.MXFP4 else 2e-3  # its scales are powers of two
        np.testing.assert_allclose(dequantize(quantize(row, kind), kind), row, rtol=near)


@each
def test_tiny_weights_become_zero_and_small_ones_do_not(kind: BlockType) -> None:
    for scale in (1e-45, 1e-38, 1e-30, 1e-12, 1e-9):
        x = normal(2, 512) * np.float32(scale)
        assert np.abs(dequantize(quantize(x, kind, importance=importance(512)), kind)).max() < 1e-6
    x = normal(2, 512) * np.float32(1e-4)
    assert error(x, quantize(x, kind), kind) < ROUGH.get(kind.name, 0.12)


@each
def test_large_weights_are_kept_or_refused(kind: BlockType) -> None:
    x = normal(2, 512) * np.float32(1e4)
    assert error(x, quantize(x, kind), kind) < ROUGH.get(kind.name, 0.12)
    x = normal(2, 512)
    x[1, 77] = 1e30
    with pytest.raises(ConversionError, match=rf"weight 589 is 1e\+30, which is too large for {kind.name}"):
        quantize(x, kind)


@pytest.mark.parametrize(("kind", "value"), [(BlockType.F16, 65520.0), (BlockType.BF16, 3.4e38)])
def test_plain_types_refuse_what_they_cannot_hold(kind: BlockType, value: float) -> None:
    x = np.zeros((2, 8), np.float32)
    x[1, 2] = value
    with pytest.raises(ConversionError, match=rf"weight 10 is .*, which is too large for {kind.name}"):
        quantize(x, kind)


@pytest.mark.parametrize("kind", [*PLAIN, *TYPES], ids=lambda kind: kind.name)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_weights_are_named(kind: BlockType, value: float) -> None:
    x = np.zeros((2 * PIECE_WEIGHTS // 512, 512), np.float32)
    x[-1, 300] = x[-2, 3] = value
    with pytest.raises(ConversionError, match=rf"weight {x.size - 1024 + 3} is {value}"):
        quantize(x, kind, threads=2)


@pytest.mark.parametrize("kind", [*PLAIN, *TYPES], ids=lambda kind: kind.name)
def test_bytes_do_not_depend_on_threads_rows_or_layout(kind: BlockType) -> None:
    x = normal(2 * PIECE_WEIGHTS // 768 + 5, 768)
    w = importance(768)
    for weights in (None, w):
        whole = quantize(x, kind, importance=weights, threads=1)
        np.testing.assert_array_equal(whole, quantize(x, kind, importance=weights, threads=3))
        some = [quantize(x[i], kind, importance=weights) for i in (0, 7, len(x) - 1)]
        np.testing.assert_array_equal(whole[[0, 7, -1]], some)
        strided = np.asfortranarray(x[:40].astype(np.float64))
        np.testing.assert_array_equal(whole[:40], quantize(strided, kind, importance=weights))
    folded = quantize(x[:6].reshape(2, 3, 768), kind)
    assert folded.shape == (2, 3, kind.row_bytes(768))
    np.testing.assert_array_equal(folded.reshape(6, -1), quantize(x[:6], kind))


def test_importance_of_every_weight() -> None:
    x, w = normal(9, 512), np.tile(importance(512), (9, 1))
    for kind in TYPES:
        np.testing.assert_array_equal(quantize(x, kind, importance=w), quantize(x, kind, importance=w[0]))
        w[4] = w[0][::-1]
        np.testing.assert_array_equal(quantize(x, kind, importance=w)[:4], quantize(x, kind, importance=w[0])[:4])
        w[4] = w[0]


def test_the_scale_of_importance_does_not_matter() -> None:
    x, w = normal(4, 512), importance(512)
    for kind in TYPES:
        np.testing.assert_array_equal(quantize(x, kind, importance=w), quantize(x, kind, importance=w * 2.0**-40))
        flat = quantize(x, kind, importance=np.zeros(512))
        np.testing.assert_array_equal(flat, quantize(x, kind, importance=np.ones(512)))


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_weights_on_a_grid_come_back(kind: BlockType) -> None:
    """What was unpacked from a type is packed into it again with hardly a loss."""
    x = dequantize(quantize(samples()["gaussian"], kind), kind)
    again = error(x, quantize(x, kind), kind)
    assert again < 0.25 * error(samples()["gaussian"], quantize(samples()["gaussian"], kind), kind)


@pytest.mark.parametrize(
    ("call", "raised", "text"),
    [
        (lambda x: quantize(x, BlockType.NVFP4), UnsupportedError, "edgert reads NVFP4 but does not quantize to it"),
        (lambda x: quantize(x, BlockType.I32), UnsupportedError, "it does to F32, F16, BF16, Q8_0"),
        (lambda x: quantize(x[:, :96], BlockType.Q4_K), RequestError, "a row of 96 weights cannot be stored as Q4_K"),
        (lambda x: quantize(x[0, 0], BlockType.F32), RequestError, "not a single number"),
        (lambda x: quantize(x, BlockType.Q4_0, importance=x[0, :32]), RequestError, r"importance has the shape \[32\]"),
        (lambda x: quantize(x, BlockType.Q4_0, importance=-np.ones(256)), ConversionError, "importance 0 is -1"),
        (
            lambda x: quantize(x, BlockType.Q4_0, importance=np.full(256, np.nan)),
            ConversionError,
            "importance 0 is nan",
        ),
    ],
)
def test_refusals(call: Callable[[NDArray[np.float32]], object], raised: type[Exception], text: str) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(raised, match=text):
        call(np.zeros((2, 256), np.float32))


def test_no_rows_and_no_columns() -> None:
    for kind in (BlockType.F16, BlockType.Q4_K, BlockType.Q8_0):
        assert quantize(np.zeros((0, 512), np.float32), kind).shape == (0, kind.row_bytes(512))
        assert quantize(np.zeros((3, 0), np.float32), kind).shape == (3, 0)


DIGEST = """
import hashlib
import numpy as np
from edgert_quant.blocks import quantize
from tests.support.ggml import TYPES, importance, samples
digest = hashlib.sha256()
for x in samples(8, 512).values():
    for kind in TYPES:
        digest.update(quantize(x, kind).tobytes() + quantize(x, kind, importance=importance(512)).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compares x86 CPUs")
def test_bytes_do_not_depend_on_the_cpu() -> None:
    """Code for a CPU of 2003, with 128-bit registers and no fused multiply-add, gives the same bytes."""

    def digest(**extra: str) -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **extra}
        run = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        return run.stdout

    assert digest(NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="") == digest()


def test_kernels_to_prepare() -> None:
    assert len(kernels([BlockType.Q4_K, BlockType.F16, BlockType.Q6_K])) == 2
    assert kernels([BlockType.Q4_K]) != kernels([BlockType.Q4_K], weighted=True)
