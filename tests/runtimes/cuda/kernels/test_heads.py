"""Heads made ready for attention: normalised, turned, stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edgert_quant.blocks import BlockType, dequantize
from edgert_runtimes.conformance.tiny import normalized_error
from edgert_runtimes.cuda.kernels import catalogue

from tests.support.cuda_host import HostKernels

ROWS, HEADS, KV_HEADS, SLOTS = 3, 4, 2, 5
SHAPES = [(64, 64), (80, 48)]
"""Elements of queries and keys, and of values."""


@pytest.fixture(scope="module")
def host() -> HostKernels:
    kernels = [catalogue.heads(BlockType.F16, *shape) for shape in SHAPES]
    return HostKernels([*kernels, catalogue.heads(BlockType.Q8_0, 64, 64)])


def ready(
    host: HostKernels,
    kind: BlockType,
    shape: tuple[int, int],
    *,
    interleaved: bool = False,
    normalised: bool = True,
    begin: int = 0,
    pairs: int = 0,
    queries: bool = True,
) -> None:
    """Random heads by the kernel and by NumPy; the last row has no slot."""
    rng = np.random.default_rng(0)
    size, value_size = shape
    q, k = (rng.standard_normal((ROWS, heads, size), dtype=np.float32) for heads in (HEADS, KV_HEADS))
    v = rng.standard_normal((ROWS, KV_HEADS, value_size), dtype=np.float32)
    norms = rng.uniform(0.5, 2, (2, size)).astype(np.float32)
    turns = rng.uniform(-np.pi, np.pi, (2, ROWS, pairs))
    tables = np.stack([np.cos(turns), np.sin(turns)], axis=-1).astype(np.float32)

    def expected(x: np.ndarray, which: int) -> np.ndarray:
        x = x.astype(np.float64)
        if normalised:
            x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) * norms[which]
        span = x[:, :, begin : begin + 2 * pairs]
        a, b = (span[..., 0::2], span[..., 1::2]) if interleaved else (span[..., :pairs], span[..., pairs:])
        cos, sin = tables[which, :, None].transpose(3, 0, 1, 2)
        parts = a * cos - b * sin, a * sin + b * cos
        turned = np.stack(parts, -1).reshape(span.shape) if interleaved else np.concatenate(parts, -1)
        x[:, :, begin : begin + 2 * pairs] = turned
        return x

    wanted = expected(q, 0) if queries else q.copy(), expected(k, 1), v
    slots = np.array([4, 0, -1], np.int32)
    caches = [np.zeros((SLOTS, kind.row_bytes(KV_HEADS * each)), np.uint8) for each in shape]
    given: dict[str, Any] = {"q": q, "k": k, "v": v, "slots": slots, "keys": caches[0], "values": caches[1]}
    for which, name in enumerate("qk"):
        given |= {
            f"{name}_norm": norms[which].copy() if normalised else None,
            f"{name}_table": tables[which].copy() if pairs else None,
            f"{name}_eps": 1e-5 if normalised else -1.0,
            f"{name}_begin": begin,
            f"{name}_pairs": pairs,
        }
    sizes = {"rows": ROWS, "heads": HEADS if queries else 0, "kv_heads": KV_HEADS}
    sizes |= {"head_size": size, "value_size": value_size, "interleaved": int(interleaved)}
    host.launch(catalogue.heads(kind, *shape), **given, **sizes)
    assert normalized_error(q, wanted[0]) < 1e-12
    for cache, stored in zip(caches, wanted[1:], strict=True):
        found = dequantize(cache, kind).reshape(SLOTS, *stored.shape[1:])
        assert normalized_error(found[[4, 0]], stored[:2]) < (1e-6 if kind is BlockType.F16 else 1e-4)
        assert not found[1:4].any()


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("begin", "pairs"), [(0, 32), (16, 10), (0, 0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_heads(host: HostKernels, shape: tuple[int, int], begin: int, pairs: int, interleaved: bool) -> None:
    for normalised in (True, False):
        ready(host, BlockType.F16, shape, interleaved=interleaved, normalised=normalised, begin=begin, pairs=pairs)


def test_blocks_of_a_cache(host: HostKernels) -> None:
    ready(host, BlockType.Q8_0, (64, 64), pairs=32)


def test_queries_that_stay(host: HostKernels) -> None:
    ready(host, BlockType.F16, (64, 64), pairs=32, queries=False)
