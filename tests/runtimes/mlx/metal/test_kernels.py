"""What the Metal kernels compute, on the host shim: every type against our dequantizers, in many shapes."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mlx.core", reason="the mlx package is not installed")

from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_runtimes.conformance.tiny import normalized_error
from edgert_runtimes.mlx.metal import RAW_TYPES, launches
from edgert_runtimes.mlx.metal.launches import Launch

from tests.support.metal import COMPILER, MISSING, ORDERS, Program

pytestmark = pytest.mark.skipif(COMPILER is None, reason=MISSING)

SHAPES = [(1, 256), (37, 768), (66, 256)]
BOUNDS = {"float32": 1e-12, "float16": 1e-6, "bfloat16": 1e-4}
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"


def numbers_of(kind: BlockType) -> list[str]:
    """All types of x for two types of blocks: they do not depend on each other."""
    return list(BOUNDS) if kind in (BlockType.Q6_K, BlockType.IQ3_S) else ["float32"]


@pytest.fixture(scope="module", params=RAW_TYPES, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> BlockType:
    return request.param


@pytest.fixture(scope="module")
def program(kind: BlockType) -> Program:
    bodies = [
        launches.rows(kind, 1, 256),
        *(launches.few_rows(kind, columns, 1) for columns in (1, 3, 8)),
        launches.pairs(kind, 1, 1, 1),
        launches.pairs(kind, 64, 1, 1),
    ]
    return Program([(launch, number) for launch in bodies for number in numbers_of(kind)])


def matrices(kind: BlockType, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Random weights as blocks [..., bytes of a row], and what they are."""
    x = np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)
    blocks = quantize(x.reshape(-1, shape[-1]), kind).reshape(*shape[:-1], -1)
    return blocks, dequantize(blocks, kind).astype(np.float64)


def inputs(number: str, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Random numbers as a kernel takes them, and what they are."""
    x = np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)
    if number == "bfloat16":
        bits = (x.view(np.uint32) >> 16).astype(np.uint16)
        return bits, floats(bits)
    given = x.astype(number)
    return given, given.astype(np.float64)


def floats(y: np.ndarray) -> np.ndarray:
    """What a kernel gave; bfloat16 is the upper half of a float32."""
    if y.dtype == np.uint16:
        y = (y.astype(np.uint32) << 16).view(np.float32)
    return y.astype(np.float64)


def sorted_ids(count: int, experts: int) -> np.ndarray:
    return np.sort(np.random.default_rng(count).integers(0, experts, count)).astype(np.uint32)


def test_rows_are_exact(kind: BlockType, program: Program) -> None:
    """To the bit, whatever the bytes are."""
    blocks = np.random.default_rng(1).integers(0, 256, (40, 3 * kind.block_bytes), np.uint8)
    ids = np.random.default_rng(2).permutation(40).astype(np.uint32)
    launch = launches.rows(kind, 40, 768)
    expected = dequantize(blocks, kind)[ids]
    assert np.isfinite(expected).mean() > 0.8
    np.testing.assert_array_equal(program.run(launch, "float32", [blocks, ids]), expected)
    for number in numbers_of(kind)[1:]:
        sound, weights = matrices(kind, 40, 768)
        assert normalized_error(floats(program.run(launch, number, [sound, ids])), weights[ids]) <= BOUNDS[number]


@pytest.mark.parametrize(("out", "width"), SHAPES)
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_few_rows(kind: BlockType, program: Program, rows: int, out: int, width: int) -> None:
    blocks, weights = matrices(kind, out, width)
    for number in numbers_of(kind):
        given, x = inputs(number, rows, width)
        y = program.run(launches.few_rows(kind, rows, out), number, [given, blocks])
        assert normalized_error(floats(y), x @ weights.T) <= BOUNDS[number]


@pytest.mark.parametrize(("out", "width"), SHAPES)
@pytest.mark.parametrize("own", [False, True], ids=["x for a token", "x for a pair"])
@pytest.mark.parametrize("count", [6, 70])
def test_experts(kind: BlockType, program: Program, count: int, own: bool, out: int, width: int) -> None:
    """Few pairs go one by one, many in tiles; here in no order, so that tiles have runs of many experts."""
    experts = 5
    blocks, weights = matrices(kind, experts, out, width)
    ids = np.random.default_rng(3).integers(0, experts, count).astype(np.uint32)
    launch = launches.pairs(kind, count, experts, out)
    assert ("gemm" in launch.kernel.name) == (count == 70)
    for number in numbers_of(kind):
        given, x = inputs(number, count if own else count // 2, width)
        expected = np.einsum("pk,pnk->pn", x if own else np.repeat(x, 2, axis=0), weights[ids])
        y = program.run(launch, number, [given, blocks, ids])
        assert normalized_error(floats(y), expected) <= BOUNDS[number]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("count", "experts"), [(65, 1), (64, 3)])
def test_many_pairs_in_order(kind: BlockType, program: Program, count: int, experts: int, order: int) -> None:
    blocks, weights = matrices(kind, experts, 130, 256)
    ids = sorted_ids(count, experts)
    given, x = inputs("float32", count, 256)
    y = program.run(launches.pairs(kind, count, experts, 130), "float32", [given, blocks, ids], order)
    assert normalized_error(y, np.einsum("pk,pnk->pn", x, weights[ids])) <= 1e-12


def without(launch: Launch, text: str, number: int) -> Launch:
    """The kernel with occurrence `number` of a text taken out."""
    pieces = launch.kernel.source.split(text)
    source = text.join(pieces[: number + 1]) + text.join(["", *pieces[number + 1 :]])[len(text) :]
    return replace(launch, kernel=replace(launch.kernel, source=source))


def test_removed_barriers_are_caught() -> None:
    """With any one missing, some order of threads gives a wrong result."""
    kind, count, experts = BlockType.Q6_K, 64, 3
    launch = launches.pairs(kind, count, experts, 66)
    barriers = launch.kernel.source.count(BARRIER)
    assert barriers == 4
    mutants = [without(launch, BARRIER, number) for number in range(barriers)]
    assert all(mutant.kernel.source.count(BARRIER) == barriers - 1 for mutant in mutants)
    program = Program([(each, "float32") for each in (launch, *mutants)])
    blocks, weights = matrices(kind, experts, 66, 512)
    ids = sorted_ids(count, experts)
    given, x = inputs("float32", count, 512)
    expected = np.einsum("pk,pnk->pn", x, weights[ids])

    def wrong(each: Launch) -> bool:
        results = [program.run(each, "float32", [given, blocks, ids], order) for order in ORDERS]
        return any(not normalized_error(y, expected) <= 1e-12 for y in results)

    assert not wrong(launch)
    assert [wrong(mutant) for mutant in mutants] == [True] * barriers
