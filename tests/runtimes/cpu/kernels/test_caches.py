"""What every type of cache keeps of a key and a value, and that its kernels lower for other CPUs."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from edgert_quant.jit import Kernel, Target, emit, ir_kernel
from edgert_runtimes.cpu.formats import LANES
from edgert_runtimes.cpu.formats.vectors import add, i64, pointer, step, store
from edgert_runtimes.cpu.kernels.caches import LAYOUTS
from edgert_runtimes.cpu.kernels.rowkeys import ROW_SCORE_KERNELS
from edgert_runtimes.cpu.kernels.storing import STORE_KEY, STORE_ROW
from edgert_runtimes.cpu.kernels.tiles import SCORE_KERNELS, VALUE_KERNELS
from edgert_runtimes.kv_types import KV_TYPES
from edgert_runtimes.memory import allocate
from edgert_runtimes.reference.cache import rounded

from tests.support.lowering import ARM, AVX2, PLAIN, VNNI, assembly, calls

SIZES = [(name, size) for name in LAYOUTS for size in (4, 20, 32, 128) if size % KV_TYPES[name].block_size == 0]


@cache
def read_key(name: str) -> Kernel:
    """(panel, out, head size): 16 keys as float32 [head size][16]."""
    layout = LAYOUTS[name]

    @ir_kernel(name=f"test.key.{name}", key=(name,))
    def read(b: Any, panel: Any, out: Any, size: Any) -> None:
        with emit.loop(b, b.sdiv(size, i64(layout.span))) as spans:
            start = step(b, pointer(b, panel), b.mul(spans.index, i64(layout.key_bytes)))
            scale = layout.key_scale(b, start)
            for i in range(layout.span):
                key = layout.key(b, step(b, start, layout.key_offset(b, i64(i // 2 * 2))), i % 2, scale)
                number = b.add(b.mul(spans.index, i64(layout.span)), i64(i))
                store(b, pointer(b, out), b.mul(number, i64(4 * LANES)), key, align=4)

    return read


@cache
def read_value(name: str, count: int) -> Kernel:
    """(row, out, head size, column): `count` vectors of a row from element `column` on."""
    layout = LAYOUTS[name]

    @ir_kernel(name=f"test.value.{name}.{count}", key=(name, count))
    def read(b: Any, row: Any, out: Any, size: Any, column: Any) -> None:
        for i, vector in enumerate(layout.values(b, pointer(b, row), size, column, count)):
            store(b, pointer(b, out), add(b, b.shl(column, i64(2)), 4 * LANES * i), vector, align=4)

    return read


def stored(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 16 rows x [16, size] as keys and as values, and back."""
    size = x.shape[1]
    row_bytes = KV_TYPES[name].row_bytes(size)
    panel, rows = (allocate(LANES * row_bytes + 64) for _ in range(2))
    panel[:], rows[:] = 0xFF, 0xFF
    x = np.ascontiguousarray(x)
    for lane, row in enumerate(x):
        address = row.ctypes.data
        STORE_KEY[name](address, panel.ctypes.data, lane, size)
        STORE_ROW[name](address, rows.ctypes.data + lane * row_bytes, size)
    assert (panel[LANES * row_bytes :] == 0xFF).all()
    assert (rows[LANES * row_bytes :] == 0xFF).all()
    keys = np.zeros((size, LANES), np.float32)
    read_key(name)(panel.ctypes.data, keys.ctypes.data, size)
    values = np.zeros((LANES, size + 2 * LANES), np.float32)
    for lane, out in enumerate(values):
        for column in range(0, size, LANES):
            count = 2 if column % 32 == 0 and lane % 2 else 1  # both ways to read
            read_value(name, count)(rows.ctypes.data + lane * row_bytes, out.ctypes.data, size, column)
    return keys.T, values[:, :size]


def inputs(size: int) -> np.ndarray:
    """Numbers of all magnitudes, ties, and what is not finite, in rows of their own."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((LANES, size)).astype(np.float32)
    x[1] *= np.float32(1e-6)
    x[2] *= np.float32(3e4)
    x[3] = 0
    x[4] = np.round(x[4] * 4) / 4 * 8
    x[5, -1] = np.nan
    x[6, 0] = np.inf
    x[7, 1] = -np.inf
    x[8] = -np.abs(x[8])
    x[9] *= np.float32(1e-40)
    x[10] = np.float32(127.5)
    x[11] = np.arange(size, dtype=np.float32) - np.float32(0.5)
    return x


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_keys_and_values_are_what_the_reference_keeps(name: str, size: int) -> None:
    x = inputs(size)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = rounded(x, KV_TYPES[name])
    for kind, found in zip(("keys", "values"), stored(name, x), strict=True):
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        assert same.all(), (kind, np.argwhere(~same)[:5], found[~same][:5], expected[~same][:5])


@pytest.mark.parametrize("target", [PLAIN, ARM, AVX2, VNNI], ids=["x86-64", "aarch64", "avx2", "avx512"])
@pytest.mark.parametrize("name", list(LAYOUTS))
def test_kernels_lower_for_other_cpus(name: str, target: Target) -> None:
    """Without calling a library for what the CPU lacks."""
    for kernels in (STORE_KEY, STORE_ROW, SCORE_KERNELS, ROW_SCORE_KERNELS, VALUE_KERNELS):
        found = calls(assembly(kernels[name], target))
        assert all(function.startswith("tile_") for function in found), found
