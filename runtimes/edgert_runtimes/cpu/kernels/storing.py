"""Kernels that store keys and values of one position and kv head, by type of cache."""

from __future__ import annotations

from edgert_quant.jit import Kernel, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats import base
from edgert_runtimes.cpu.formats.vectors import Value, pointer
from edgert_runtimes.cpu.kernels.caches import LAYOUTS, SOURCES, CacheLayout


def _store_kernel(name: str, layout: CacheLayout) -> Kernel:
    @ir_kernel(name=name, key=(base, *SOURCES))
    def store(b: ir.IRBuilder, key: Value, value: Value, panel: Value, lane: Value, row: Value, width: Value) -> None:
        layout.store_key(b, pointer(b, key), pointer(b, panel), lane, width)
        layout.store_value(b, pointer(b, value), pointer(b, row), width)

    return store


STORE_KERNELS = {name: _store_kernel(f"attend.store.{name}", layout) for name, layout in LAYOUTS.items()}
"""(key, value, panel, lane, row, head size): float32[head size] each, into a lane of a panel and a row of values."""
