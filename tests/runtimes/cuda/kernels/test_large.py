"""Offsets beyond 32 bits: experts, tokens, slots, blocks and rows that lie more than 2^32 bytes from where their arrays
begin. The memory is there only where it is touched.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any

import numpy as np
import pytest
from edgert_quant.blocks import BlockType
from edgert_runtimes.conformance.tiny import normalized_error
from edgert_runtimes.cuda.kernels import catalogue

from tests.support.cuda_host import HostKernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory that is not there takes Linux")

F16 = BlockType.F16
K = 64
NO_RESERVE = 0x4000
"""MAP_NORESERVE of Linux."""
KERNELS = [
    *(catalogue.embed(F16), catalogue.experts_up(F16, F16, "silu"), catalogue.experts_down(F16)),
    *(catalogue.experts_gemm(F16), catalogue.heads(F16, K, K), catalogue.attend(F16, K, K, 1)),
    *(catalogue.pick_rows(), catalogue.copy_blocks(), catalogue.short_conv()),
]
rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def host() -> HostKernels:
    return HostKernels(KERNELS)


def sparse(rows: int, *shape: int, dtype: Any = np.float16) -> np.ndarray:
    """Zeros [rows, *shape] that take no room."""
    size = rows * int(np.prod(shape)) * np.dtype(dtype).itemsize
    assert size > 1 << 32
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
    return np.frombuffer(memory, dtype).reshape(rows, *shape)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def test_tokens(host: HostKernels) -> None:
    last = (1 << 26) - 1
    table = sparse(last + 1, K)
    table[last] = np.arange(K)
    y = np.empty((1, K), np.float32)
    host.launch(catalogue.embed(F16), w=table, tokens=np.array([last], np.int32), y=y, rows=1, width=K)
    assert np.array_equal(y[0], np.arange(K))


def test_experts(host: HostKernels) -> None:
    """One by one, and sorted; the last of more than a million."""
    last, rows = (1 << 20) - 1, 2
    experts = sparse(last + 1, 40, K)
    experts[last] = normal(40, K)
    matrix = experts[last].astype(np.float64)
    x, ids = normal(rows, K), np.full(rows, last, np.int32)
    common: dict[str, Any] = {"x": x, "codes": None, "scales": None}
    y = np.empty((rows, 40), np.float32)
    shares = np.ones(rows, np.float32)
    given = {"w": experts, "ids": ids, "shares": shares, "bias": None, "add": None, "y": y}
    host.launch(catalogue.experts_down(F16), **common, **given, rows=rows, used=1, out=40, k=K)
    assert normalized_error(y, x @ matrix.T) < 1e-10
    tiles = np.array([[last, 0, rows, 0]], np.int32)
    order = np.arange(rows, dtype=np.int32)
    sorted_ = {"w": experts, "order": order, "tiles": tiles, "bias": None, "y": y, "most_tiles": 1, "divisor": 1}
    y[:] = 0
    host.launch(catalogue.experts_gemm(F16), **common, **sorted_, out=40, k=K)
    assert normalized_error(y, x @ matrix.T) < 1e-10
    inward: dict[str, Any] = {"gate": experts, "up": experts, "ids": ids, "weights": None, "h": y}
    inward |= {"gate_bias": None, "up_bias": None}
    kernel = catalogue.experts_up(F16, F16, "silu")
    host.launch(kernel, **common, **inward, h_codes=None, h_scales=None, rows=rows, used=1, hidden=40, k=K)
    z = x @ matrix.T
    assert normalized_error(y, z / (1 + np.exp(-z)) * z) < 1e-10


def test_caches(host: HostKernels) -> None:
    """A slot of the last block of a pool, whose blocks are copied too."""
    blocks, size = 1 << 22, 16
    keys, values = (sparse(blocks, size, K) for _ in range(2))
    k, v, q = normal(1, K), normal(1, K), normal(1, K)
    slot = np.array([blocks * size - size], np.int32)
    where: dict[str, Any] = {"keys": keys, "values": values}
    rules = {f"{x}_{name}": None for x in "qk" for name in ("norm", "table")}
    rules |= {f"{x}_{name}": 0 for x in "qk" for name in ("begin", "pairs")}
    sizes = {"rows": 1, "heads": 0, "kv_heads": 1, "head_size": K, "value_size": K, "interleaved": 0}
    heads = catalogue.heads(F16, K, K)
    host.launch(heads, q=q, k=k, v=v, slots=slot, **where, **rules, q_eps=-1.0, k_eps=-1.0, **sizes)
    assert np.array_equal(keys[-1, 0], k[0].astype(np.float16))
    out = np.empty((1, K), np.float32)
    zero = np.zeros(1, np.int32)
    rest: dict[str, Any] = {"sinks": None, "codes": None, "scales": None, "partial": None, "rows": 1, "kv_heads": 1}
    rest |= {"table_width": 1, "block_size": size, "window": 0, "scale": 1.0, "softcap": 0.0, "splits": 1}
    tables = np.array([[blocks - 1]], np.int32)
    kernel = catalogue.attend(F16, K, K, 1)
    host.launch(kernel, q=q, **where, tables=tables, sequence=zero, positions=zero, out=out, **rest)
    assert np.array_equal(out, v.astype(np.float16).astype(np.float32))
    pairs = np.array([[blocks - 1, blocks - 2]], np.int32)
    host.launch(catalogue.copy_blocks(), cache=keys, pairs=pairs, count=1, block_bytes=2 * size * K)
    assert np.array_equal(keys[-2], keys[-1])


def test_rows_and_states(host: HostKernels) -> None:
    last = 1 << 25
    x = sparse(last + 1, K, dtype=np.float32)
    x[last] = normal(K)
    y = np.empty((1, K), np.float32)
    host.launch(catalogue.pick_rows(), x=x, pick=np.array([last], np.int32), y=y, picked=1, width=K)
    assert np.array_equal(y[0], x[last])
    given: dict[str, Any] = {"weight": np.ones((K, 2), np.float32), "bias": None, "state": x, "y": y}
    runs = np.array([[0, 1, last, last - 1]], np.int32)
    one = normal(1, K)
    host.launch(catalogue.short_conv(), x=one, runs=runs, **given, count=1, width=K, taps=2, silu=0)
    assert np.array_equal(y, one + x[last])
    assert np.array_equal(x[last - 1], one[0])
