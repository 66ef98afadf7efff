"""Kernels that store a key, or values, of one position and kv head, by type of cache."""

from __future__ import annotations

from edgert_quant.jit import Kernel, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats import base
from edgert_runtimes.cpu.formats.vectors import Value, pointer
from edgert_runtimes.cpu.kernels.caches import LAYOUTS, SOURCES, CacheLayout


def _key_kernel(name: str, layout: CacheLayout) -> Kernel:
    @ir_kernel(name=name, key=(base, *SOURCES))
    def store(b: ir.IRBuilder, x: Value, panel: Value, lane: Value, size: Value) -> None:
        layout.store_key(b, pointer(b, x), pointer(b, panel), lane, size)

    return store


def _row_kernel(name: str, layout: CacheLayout) -> Kernel:
    @ir_kernel(name=name, key=(base, *SOURCES))
    def store(b: ir.IRBuilder, x: Value, row: Value, size: Value) -> None:
        layout.store_value(b, pointer(b, x), pointer(b, row), size)

    return store


STORE_KEY = {name: _key_kernel(f"attend.store_key.{name}", layout) for name, layout in LAYOUTS.items()}
"""(x, panel, lane, size): float32[size] into a lane of a panel."""

STORE_ROW = {name: _row_kernel(f"attend.store_row.{name}", layout) for name, layout in LAYOUTS.items()}
"""(x, row, size): float32[size] into a row."""
