"""Products with raw blocks through MLX: on a GPU where there is Metal, else on the host shim in its place."""

# ruff: noqa: E402

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="the mlx package is not installed")

from edgert_models.errors import BackendError, RequestError, UnsupportedError
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_runtimes.conformance.tiny import normalized_error
from edgert_runtimes.mlx.metal import RAW_TYPES, raw_gather_matmul, raw_matmul, raw_rows
from edgert_runtimes.mlx.metal.launches import check_matrix

pytestmark = pytest.mark.mlx
ON_METAL = mx.metal.is_available()
TYPES = RAW_TYPES if ON_METAL else (BlockType.Q6_K,)  # `test_kernels` has all of them on the shim
BOUNDS = {mx.float32: 1e-11, mx.float16: 1e-6, mx.bfloat16: 1e-4}
SHAPES = [((1,), 1, 256), ((3,), 37, 768), ((9,), 66, 512), ((2, 33), 37, 256)]


@pytest.fixture(params=TYPES, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> BlockType:
    return request.param


def matrices(kind: BlockType, *shape: int) -> tuple[mx.array, np.ndarray]:
    x = np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)
    blocks = quantize(x.reshape(-1, shape[-1]), kind).reshape(*shape[:-1], -1)
    return mx.array(blocks), dequantize(blocks, kind).astype(np.float64)


def inputs(dtype: mx.Dtype, *shape: int) -> tuple[mx.array, np.ndarray]:
    x = mx.array(np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)).astype(dtype)
    return x, floats(x)


def floats(x: mx.array) -> np.ndarray:
    return np.asarray(x.astype(mx.float32)).astype(np.float64)


@pytest.mark.usefixtures("metal")
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(("shape", "out", "width"), SHAPES)
def test_matrices(kind: BlockType, dtype: mx.Dtype, shape: tuple[int, ...], out: int, width: int) -> None:
    blocks, weights = matrices(kind, out, width)
    given, x = inputs(dtype, *shape, width)
    y = raw_matmul(given, blocks, kind)
    assert y.dtype == dtype
    assert normalized_error(floats(y), x @ weights.T) <= BOUNDS[dtype]


@pytest.mark.usefixtures("metal")
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("own", [False, True], ids=["x for a row", "x for an id"])
def test_experts(kind: BlockType, dtype: mx.Dtype, rows: int, own: bool) -> None:
    blocks, weights = matrices(kind, 5, 37, 512)
    ids = np.random.default_rng(rows).integers(0, 5, (rows, 2)).astype(np.uint32)
    given, x = inputs(dtype, *((rows, 2, 512) if own else (rows, 512)))
    expected = np.einsum("ruk,runk->run", x if own else np.repeat(x[:, None], 2, axis=1), weights[ids])
    y = raw_gather_matmul(given, blocks, mx.array(ids), kind)
    assert y.dtype == dtype
    assert normalized_error(floats(y), expected) <= BOUNDS[dtype]


@pytest.mark.usefixtures("metal")
def test_rows(kind: BlockType) -> None:
    blocks, weights = matrices(kind, 40, 768)
    ids = np.random.default_rng(1).integers(0, 40, (3, 5)).astype(np.uint32)
    np.testing.assert_array_equal(floats(raw_rows(blocks, mx.array(ids), kind, mx.float32)), weights[ids])


@pytest.mark.usefixtures("metal")
def test_no_rows_are_no_launch() -> None:
    blocks = mx.zeros((2, 3, 210), mx.uint8)
    assert raw_matmul(mx.zeros((0, 256)), blocks[0], BlockType.Q6_K).shape == (0, 3)
    ids = mx.zeros((0, 2), mx.uint32)
    assert raw_gather_matmul(mx.zeros((0, 256)), blocks, ids, BlockType.Q6_K).shape == (0, 2, 3)


@pytest.mark.skipif(ON_METAL, reason="there is Metal here")
def test_without_metal_nothing_runs(kind: BlockType) -> None:
    blocks, _ = matrices(kind, 2, 256)
    message = f"blocks of {kind.name} are multiplied by Metal kernels, and there is no Metal here"
    with pytest.raises(BackendError, match=message):
        raw_matmul(mx.zeros((1, 256)), blocks, kind)
    with pytest.raises(BackendError, match=message):
        raw_gather_matmul(mx.zeros((1, 256)), blocks[None], mx.zeros((1, 1), mx.uint32), kind)
    with pytest.raises(BackendError, match=message):
        raw_rows(blocks, mx.zeros(1, mx.uint32), kind, mx.float32)


def test_other_types_of_x_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"^x is mlx\.core\.int32; it can be float32, float16 or bfloat16$"):
        raw_matmul(mx.zeros((1, 256), mx.int32), mx.zeros((1, 210), mx.uint8), BlockType.Q6_K)


@pytest.mark.usefixtures("metal")
def test_ids_that_do_not_belong_to_x() -> None:
    blocks = mx.zeros((2, 3, 210), mx.uint8)
    with pytest.raises(RequestError, match=r"^x \[5, 256\] has neither a row for each row of ids \[4, 2\] nor"):
        raw_gather_matmul(mx.zeros((5, 256)), blocks, mx.zeros((4, 2), mx.uint32), BlockType.Q6_K)


def test_types_without_kernels_and_other_shapes_are_refused() -> None:
    assert check_matrix(BlockType.Q6_K, (3, 420), 512) == 512
    with pytest.raises(UnsupportedError, match=r"^there is no Metal kernel for Q4_K; there are kernels for Q6_K, Q3_K"):
        check_matrix(BlockType.Q4_K, (1, 144))
    for shape, width, wanted in (((4, 211), None, ""), ((4, 210), 512, " of 512 weights"), ((4, 0), None, "")):
        message = rf"^blocks \[4, {shape[1]}\] are no rows{wanted} of Q6_K, which has 210 bytes for 256 weights$"
        with pytest.raises(RequestError, match=message):
            check_matrix(BlockType.Q6_K, shape, width)
