"""Weights as the kernels want them: matrices as they lie in the file, vectors as floats.

Matrices are mapped where the provider can map them: nothing is copied, several processes share what the system has
cached, and a model may be larger than the memory. Where it cannot, they are read. Only a type that has no kernels is
turned into another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Plan, Role
from edgert_quant.blocks import BlockType, dequantize
from numpy.typing import NDArray

from edgert_runtimes.base import LoadedWeight, StoredWeight, WeightProvider
from edgert_runtimes.cpu.formats import Format, format_for
from edgert_runtimes.memory import allocate

PIECE = 16 << 20
"""Bytes that are read at once where a type is expanded."""

WHOLE_NUMBERS = (BlockType.I8, BlockType.I16, BlockType.I32, BlockType.I64)


@dataclass(frozen=True)
class Matrix:
    """Rows of one matrix [rows, k], or of `experts` of them, one after another: uint8 [experts · rows, row bytes]."""

    data: NDArray[np.uint8]
    format: Format
    experts: int
    rows: int
    k: int


@dataclass(frozen=True)
class Vector:
    """Floats."""

    data: NDArray[np.float32]


Loaded = Matrix | Vector


@dataclass(frozen=True)
class Layout:
    """What is to become of a tensor. `format` is that of the kernels; `expand` says that its type has none of its own,
    so that it becomes F32; `mapped` that it stays where it is.
    """

    name: str
    kind: type[Loaded]
    stored: StoredWeight
    format: Format
    expand: bool
    mapped: bool

    @property
    def nbytes(self) -> int:
        """Bytes it will take, or takes in the file."""
        rows, k = int(np.prod(self.stored.shape[:-1], dtype=np.int64)), self.stored.shape[-1]
        return rows * (4 * k if self.kind is Vector else self.format.type.row_bytes(k))

    def report(self) -> LoadedWeight:
        """For the load report."""
        where = "mapped" if self.mapped else "copied"
        layout = "float32" if self.kind is Vector else f"{self.format.type.name}, {where}"
        note = ""
        if self.expand and self.kind is not Vector:
            growth = 32 / self.stored.type.bits_per_weight
            note = f"{self.stored.type.name} has no kernel: kept as F32, {growth:.1f} times its size"
        return LoadedWeight(self.name, self.stored.type, layout, self.nbytes, note, self.mapped)


def plan_layouts(plan: Plan, provider: WeightProvider) -> dict[str, Layout]:
    """How to keep every weight of the plan. UnsupportedError names a tensor that cannot be one."""
    layouts = {}
    for name, weight in plan.weights.items():
        stored = provider.weights[name]
        if stored.type in WHOLE_NUMBERS:
            raise UnsupportedError(f"tensor {name}: integers ({stored.type.name}) cannot be weights")
        own = format_for(stored.type)
        plain = format_for(BlockType.F32)
        assert plain is not None
        if weight.role in (Role.VECTOR, Role.ADAPTER):
            layouts[name] = Layout(name, Vector, stored, plain, stored.type is not BlockType.F32, mapped=False)
            continue
        mapped = own is not None and provider.map(name) is not None
        layouts[name] = Layout(name, Matrix, stored, own or plain, own is None, mapped)
    return layouts


def load_weights(
    layouts: Mapping[str, Layout], provider: WeightProvider, progress: Callable[[int], None]
) -> dict[str, Loaded]:
    """Map, read or expand everything; `progress(bytes)` tells of each piece, in bytes of the file."""
    loaded: dict[str, Loaded] = {}
    for layout in layouts.values():
        if layout.kind is Vector:
            raw = provider.read(layout.name)
            loaded[layout.name] = Vector(np.ascontiguousarray(dequantize(raw, layout.stored.type).reshape(-1)))
            progress(raw.nbytes)
            continue
        *outer, rows, k = layout.stored.shape
        data = provider.map(layout.name) if layout.mapped else None
        if data is None:
            data = _read(layout, provider, progress)
        else:
            progress(data.nbytes)
        loaded[layout.name] = Matrix(data, layout.format, outer[0] if outer else 1, rows, k)
    return loaded


def _read(layout: Layout, provider: WeightProvider, progress: Callable[[int], None]) -> NDArray[np.uint8]:
    """A copy, of rows in the format's type."""
    k, row_bytes = layout.stored.shape[-1], layout.format.type.row_bytes(layout.stored.shape[-1])
    data = allocate(layout.nbytes).reshape(-1, row_bytes)
    for first, raw in _pieces(layout, provider, max(1, PIECE // (4 * k))):
        values = np.ascontiguousarray(dequantize(raw, layout.stored.type)).view(np.uint8) if layout.expand else raw
        data[first : first + len(raw)] = values
        progress(raw.nbytes)
    return data


def _pieces(layout: Layout, provider: WeightProvider, step: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    rows = int(np.prod(layout.stored.shape[:-1], dtype=np.int64))
    for first in range(0, rows, step):
        yield first, provider.read(layout.name, first, min(step, rows - first))
