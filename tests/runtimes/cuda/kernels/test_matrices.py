"""Products of matrices of every type with few and with many rows."""

import numpy as np
import pytest
from edgert_quant.blocks import BlockType
from edgert_runtimes.conformance.tiny import normalized_error
from edgert_runtimes.cuda.kernels import catalogue

from tests.support.cuda_blocks import Activations, random_rows, weights
from tests.support.cuda_host import HostKernels

FEW = BlockType.F32, BlockType.F16, BlockType.Q8_0, BlockType.Q4_K, BlockType.Q6_K


@pytest.fixture(scope="module")
def host() -> HostKernels:
    few = [catalogue.linear(kind, columns) for kind in FEW for columns in (1, 2, 8)]
    every = [make(kind) for kind in catalogue.WEIGHTS for make in (lambda k: catalogue.linear(k, 3), catalogue.gemm)]
    embeddings = [catalogue.embed(kind) for kind in catalogue.WEIGHTS]
    return HostKernels([*few, *every, *embeddings])


def width(kind: BlockType, blocks: int) -> int:
    """Whole blocks; of plain numbers, an odd number of them."""
    return 129 * blocks if kind in catalogue.FLOATS else blocks * max(kind.block_size, 64)


def linear(host: HostKernels, kind: BlockType, columns: int, out: int, k: int) -> None:
    w, x = random_rows(kind, out, k), Activations(columns, k, kind)
    bias, add = np.random.default_rng(2).standard_normal((2, columns, out), dtype=np.float32)
    y = np.empty((columns, out), np.float32)
    kernel = catalogue.linear(kind, columns)
    host.launch(kernel, w=w, **x.arguments, bias=bias, add=add, y=y, out=out, k=k)
    assert normalized_error(y, x.seen @ weights(w, kind).T + bias[0] + add) < 1e-11


@pytest.mark.parametrize("kind", catalogue.WEIGHTS, ids=lambda kind: kind.name)
def test_few_rows_of_every_type(host: HostKernels, kind: BlockType) -> None:
    linear(host, kind, 3, 11, width(kind, 3))


@pytest.mark.parametrize("columns", [1, 2, 8])
@pytest.mark.parametrize("kind", FEW, ids=lambda kind: kind.name)
def test_shapes_of_few_rows(host: HostKernels, kind: BlockType, columns: int) -> None:
    for out, k in ((1, 256), (8, 512), (33, 2304)):
        linear(host, kind, columns, out, k)


def gemm(host: HostKernels, kind: BlockType, rows: int, out: int, k: int, bias: bool = True) -> None:
    w, x = random_rows(kind, out, k), Activations(rows, k, kind)
    rng = np.random.default_rng(2)
    b, add = rng.standard_normal(out, dtype=np.float32), rng.standard_normal((rows, out), dtype=np.float32)
    y = np.empty((rows, out), np.float32)
    given = {"bias": b, "add": add} if bias else {"bias": None, "add": None}
    host.launch(catalogue.gemm(kind), w=w, **x.arguments, **given, y=y, rows=rows, out=out, k=k)
    assert normalized_error(y, x.seen @ weights(w, kind).T + (b + add if bias else 0)) < 1e-11


@pytest.mark.parametrize("kind", catalogue.WEIGHTS, ids=lambda kind: kind.name)
def test_many_rows_of_every_type(host: HostKernels, kind: BlockType) -> None:
    gemm(host, kind, 9, 131, width(kind, 3))


@pytest.mark.parametrize("kind", FEW, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("rows", "out"), [(1, 1), (64, 128), (65, 129), (130, 20)])
def test_shapes_of_many_rows(host: HostKernels, kind: BlockType, rows: int, out: int) -> None:
    gemm(host, kind, rows, out, width(kind, 1), bias=rows % 2 == 0)


@pytest.mark.parametrize("kind", catalogue.WEIGHTS, ids=lambda kind: kind.name)
def test_embedding(host: HostKernels, kind: BlockType) -> None:
    k = width(kind, 2)
    w, tokens = random_rows(kind, 7, k), np.array([6, 0, 3, 3], np.int32)
    y = np.empty((4, k), np.float32)
    host.launch(catalogue.embed(kind), w=w, tokens=tokens, y=y, rows=4, width=k)
    assert normalized_error(y, weights(w, kind)[tokens]) < 1e-13


@pytest.mark.parametrize("kind", [BlockType.Q4_K, BlockType.Q6_K, BlockType.F16], ids=lambda kind: kind.name)
def test_a_nan_reaches_its_own_row_only(host: HostKernels, kind: BlockType) -> None:
    w, x = random_rows(kind, 5, 512), Activations(3, 512, kind)
    if x.scales is None:
        x.x[1, 100] = np.nan
    else:
        x.scales[1, 3] = np.nan
    few, many = np.empty((2, 3, 5), np.float32)
    given = {"w": w, **x.arguments, "bias": None, "add": None, "out": 5, "k": 512}
    host.launch(catalogue.linear(kind, 3), **given, y=few)
    host.launch(catalogue.gemm(kind), **given, y=many, rows=3)
    for y in (few, many):
        assert np.isnan(y).any(axis=1).tolist() == [False, True, False]


def test_rows_beyond_two_to_the_31_bytes(host: HostKernels) -> None:
    """An embedding of 2^31 bytes and more: only the rows asked for are touched, the others are holes."""
    rows, k = (1 << 31) // 4096 + 2, 4096
    w = np.zeros((rows, k), np.uint8).view(np.float32)
    w[-1] = np.arange(k // 4)
    y = np.empty((1, k // 4), np.float32)
    host.launch(catalogue.embed(BlockType.F32), w=w, tokens=np.array([rows - 1], np.int32), y=y, rows=1, width=k // 4)
    assert np.array_equal(y[0], np.arange(k // 4))
