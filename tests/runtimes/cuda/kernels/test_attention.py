"""Caches and attention of every type, against the reference."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from edgert_models import graph, ops
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Batch
from edgert_runtimes.conformance.tiny import batch, normalized_error
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.reference.cache import Cache, rounded
from edgert_runtimes.reference.ops import Weights, attend
from edgert_runtimes.weights import MemoryWeights

from tests.support.cuda_blocks import q8, unpacked, weights
from tests.support.cuda_host import HostKernels

SHAPES = [(64, 4), (128, 1), (128, 12), (32, 8), (64, 5)]  # head size, group
ODD = [(8, 1), (16, 2), (80, 3), (256, 2)]  # of floats alone
TILED = (BlockType.F16, BlockType.Q8_0, BlockType.Q4_0)


def name(item: Any) -> str:
    return item.name if isinstance(item, BlockType) else "x".join(map(str, item))


ATTEND = [(kind, shape) for kind in catalogue.KV_TYPES for shape in SHAPES[:2]]
ATTEND += [(BlockType.F16, shape) for shape in (*SHAPES[2:], *ODD)]
TILES = [(kind, shape) for kind in TILED for shape in SHAPES[:2]]
TILES += [(BlockType.F16, shape) for shape in (*SHAPES[2:], (16, 2), (80, 3))]


@pytest.fixture(scope="module")
def host() -> HostKernels:
    kernels = [catalogue.store(kind) for kind in catalogue.KV_TYPES]
    kernels += [catalogue.attend(kind, size, size, group) for kind, (size, group) in ATTEND]
    kernels += [catalogue.attend_tile(kind, *shape) for kind, shape in TILES]
    kernels += [catalogue.attend_combine(size) for size in sorted({size for _, (size, _) in ATTEND})]
    return HostKernels([*kernels, catalogue.copy_blocks()])


class Paged:
    """Two kv heads' caches, filled for a batch by the kernel and by the reference."""

    BLOCK = 16

    def __init__(self, host: HostKernels, kind: BlockType, shape: tuple[int, int], sinks: bool = False) -> None:
        self.host, self.kind, (self.size, self.group) = host, kind, shape
        self.width, self.heads = 2 * self.size, 2 * self.group
        blocks = 24
        bytes_ = kind.row_bytes(self.width)
        self.keys, self.values = (np.zeros((blocks * self.BLOCK, bytes_), np.uint8) for _ in range(2))
        self.reference = Cache(blocks * self.BLOCK, graph.Cache(2, self.size, self.size, None), self.BLOCK, kind)
        self.sinks = np.random.default_rng(8).standard_normal(self.heads, dtype=np.float32) if sinks else None
        self.rng = np.random.default_rng(9)

    def fill(self, rows: Batch) -> None:
        """Store random keys and values for a batch."""
        k, v = self.rng.standard_normal((2, len(rows.tokens), self.width), dtype=np.float32)
        self.store(k, v, rows.slots)
        self.reference.store(rows.slots, k.astype(np.float64), v.astype(np.float64))

    def store(self, k: np.ndarray, v: np.ndarray, slots: np.ndarray) -> None:
        given = {"keys": self.keys, "values": self.values, "slots": slots, "rows": len(slots)}
        widths = {"key_width": self.width, "value_width": self.width}
        self.host.launch(catalogue.store(self.kind), k=k, v=v, **given, **widths)

    def expected(self, rows: Batch, q: np.ndarray, window: int | None) -> np.ndarray:
        """The reference's answer over what is stored."""
        op = ops.Attend(
            out=ops.Value(3, q.shape[1]),
            q=ops.Value(0, q.shape[1]),
            k=ops.Value(1, self.width),
            v=ops.Value(2, self.width),
            layer=0,
            heads=self.heads,
            kv_heads=2,
            head_size=self.size,
            value_size=self.size,
            scale=self.size**-0.5,
            window=window,
            sinks=None if self.sinks is None else "sinks",
        )
        tensors = {}
        if self.sinks is not None:
            tensors["sinks"] = (BlockType.F32, self.sinks.shape, self.sinks.reshape(1, -1).view(np.uint8))
        elsewhere = replace(rows, slots=np.array([len(self.keys) - 1], np.int32))  # what rows store is stored already
        zeros = np.zeros((1, self.width))
        weights = Weights(MemoryWeights(tensors))
        return attend(op, elsewhere, weights, self.reference, q.astype(np.float64), zeros, zeros)

    def arguments(self, rows: Batch, q: np.ndarray, window: int | None) -> dict[str, Any]:
        return {
            "q": q,
            "keys": self.keys,
            "values": self.values,
            "tables": rows.tables,
            "sequence": rows.sequence,
            "positions": rows.positions,
            "sinks": self.sinks,
            "out": np.full(q.shape, np.nan, np.float32),
            "kv_heads": 2,
            "table_width": rows.tables.shape[1],
            "block_size": self.BLOCK,
            "window": window or 0,
            "scale": self.size**-0.5,
            "softcap": 0.0,
        }

    def attend(self, rows: Batch, q: np.ndarray, window: int | None = None, splits: int = 1) -> Any:
        given = self.arguments(rows, q, window)
        partial = np.full((len(q), self.heads, splits, self.size + 2), np.nan, np.float32) if splits > 1 else None
        kernel = catalogue.attend(self.kind, self.size, self.size, self.group)
        blocks: dict[str, Any] = {"codes": None, "scales": None}
        if self.size % 32 == 0:
            blocks = {
                "codes": np.zeros(q.shape, np.int8),
                "scales": np.zeros((len(q), q.shape[1] // 32, 4), np.float32),
            }
        self.host.launch(kernel, **given, **blocks, partial=partial, rows=len(q), splits=splits)
        if partial is not None:
            combine = {"partial": partial, "sinks": self.sinks, "out": given["out"], **blocks}
            sizes = {"rows": len(q), "heads": self.heads, "splits": splits}
            self.host.launch(catalogue.attend_combine(self.size), **combine, **sizes)
        if self.size % 32 == 0:
            assert normalized_error(unpacked(**blocks), unpacked(*q8(given["out"]))) < 1e-12
        return given["out"]

    def attend_tile(self, rows: Batch, q: np.ndarray, window: int | None = None) -> Any:
        given = self.arguments(rows, q, window)
        most = catalogue.tile_rows(self.group)
        tiles = []
        for sequence in range(len(rows.lengths)):
            (mine,) = np.nonzero(rows.sequence == sequence)
            tiles += [(first, min(most, mine[-1] + 1 - first)) for first in range(mine[0], mine[-1] + 1, most)]
        kernel = catalogue.attend_tile(self.kind, self.size, self.group)
        self.host.launch(kernel, **given, tiles=np.array(tiles, np.int32), count=len(tiles))
        return given["out"]

    def queries(self, rows: int) -> np.ndarray:
        return 2 * self.rng.standard_normal((rows, self.heads * self.size), dtype=np.float32)


def two_sequences() -> Batch:
    """Seventy and nine positions, in blocks that are not in order."""
    first = [5, 3, 9, 1, 0, 22]
    return batch([([0] * 70, 0, first), ([0] * 9, 0, [7])])


def last_rows() -> Batch:
    """What comes next in both."""
    return batch([([0], 69, [5, 3, 9, 1, 0, 22]), ([0], 8, [7, 0, 0, 0, 0, 0])])


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [None, 33, 1])
@pytest.mark.parametrize(("kind", "shape"), ATTEND, ids=name)
def test_few_rows(host: HostKernels, kind: BlockType, shape: tuple[int, int], window: int | None, sinks: bool) -> None:
    cache, rows = Paged(host, kind, shape, sinks), last_rows()
    cache.fill(two_sequences())
    q = cache.queries(2)
    expected = cache.expected(rows, q, window)
    assert normalized_error(cache.attend(rows, q, window), expected) < 1e-10
    assert normalized_error(cache.attend(rows, q, window, splits=4), expected) < 1e-10


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize(("kind", "shape"), TILES, ids=name)
def test_many_rows(host: HostKernels, kind: BlockType, shape: tuple[int, int], window: int | None, sinks: bool) -> None:
    cache, rows = Paged(host, kind, shape, sinks), two_sequences()
    cache.fill(rows)
    q = cache.queries(len(rows.tokens))
    assert normalized_error(cache.attend_tile(rows, q, window), cache.expected(rows, q, window)) < 1e-9


def test_tiles_that_begin_late(host: HostKernels) -> None:
    """Rows of a second chunk of a prompt: their first position is far from 0, and so is their last."""
    cache, blocks = Paged(host, BlockType.F16, (64, 4)), range(24)
    cache.fill(batch([([0] * 300, 0, blocks)]))
    rows = batch([([0] * 21, 279, blocks)])
    q = cache.queries(21)
    for window in (None, 100):
        assert normalized_error(cache.attend_tile(rows, q, window), cache.expected(rows, q, window)) < 1e-9


def test_scores_that_are_large(host: HostKernels) -> None:
    """Softmax must not overflow, and one position has nearly all weight."""
    cache, rows = Paged(host, BlockType.F16, (64, 4)), two_sequences()
    cache.fill(rows)
    q = 100 * cache.queries(len(rows.tokens))
    expected = cache.expected(rows, q, None)
    assert normalized_error(cache.attend_tile(rows, q), expected) < 1e-7
    assert normalized_error(cache.attend(rows, q), expected) < 1e-7


@pytest.mark.parametrize("kind", catalogue.KV_TYPES, ids=name)
def test_store_rounds_as_the_reference_does(host: HostKernels, kind: BlockType) -> None:
    cache = Paged(host, kind, (64, 1))
    k, v = np.random.default_rng(1).standard_normal((2, 6, 128), dtype=np.float32)
    k[1] = 0
    k[2, :32] = 1e-7
    k[3, 5] = 1000
    k[4, 0], k[4, 1] = 3, -3  # of equal magnitude: the first counts
    slots = np.array([3, 17, 0, 40, 41, 42], np.int32)
    cache.store(k, v, slots)
    assert np.array_equal(weights(cache.keys[slots], kind), rounded(k, kind))
    assert np.array_equal(weights(cache.values[slots], kind), rounded(v, kind))
    assert not cache.keys[[1, 2, 16, 18]].any()


@pytest.mark.parametrize("kind", [BlockType.Q8_0, BlockType.Q4_0], ids=name)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_store_keeps_what_is_not_finite(host: HostKernels, kind: BlockType, bad: float) -> None:
    cache, k = Paged(host, kind, (64, 1)), np.ones((1, 128), np.float32)
    k[0, 40] = bad
    cache.store(k, k, np.array([2], np.int32))
    finite = np.isfinite(weights(cache.keys[2], kind).reshape(4, 32)).all(axis=1)
    assert finite.tolist() == [True, False, True, True]


def test_store_leaves_out_negative_slots(host: HostKernels) -> None:
    cache = Paged(host, BlockType.F32, (64, 1))
    cache.store(*np.ones((2, 2, 128), np.float32), np.array([-1, 4], np.int32))
    assert np.nonzero(cache.keys.any(axis=1))[0].tolist() == [4]


@pytest.mark.parametrize("size", [4096, 1700, 34])
def test_copy_blocks_in_order(host: HostKernels, size: int) -> None:
    cache = np.random.default_rng(0).integers(0, 256, (5, size), dtype=np.uint8)
    expected = cache.copy()
    pairs = [(0, 1), (1, 2), (4, 0)]
    for source, target in pairs:
        expected[target] = expected[source]
    host.launch(catalogue.copy_blocks(), cache=cache, pairs=np.array(pairs, np.int32), count=3, block_bytes=size)
    assert np.array_equal(cache, expected)
