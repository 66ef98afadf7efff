"""Weights as the kernels want them: matrices in panels, vectors as floats, embeddings that are only looked up as they
are.

Nothing is mapped: pieces are read, packed by several threads, and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Plan, Role
from edgert_models.ops import Embed
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.jit import Kernel, kernel
from edgert_quant.jit.primitives import call5
from numpy.typing import NDArray

from edgert_runtimes.base import LoadedWeight, StoredWeight, WeightProvider
from edgert_runtimes.cpu.formats import LANES, Format, format_for
from edgert_runtimes.cpu.memory import allocate

PIECE = 4 << 20
"""Bytes read and packed at once by each thread, at least one panel."""

WHOLE_NUMBERS = (BlockType.I8, BlockType.I16, BlockType.I32, BlockType.I64)


@kernel
def pack_panels(pack: int, source: int, row_bytes: int, rows: int, k: int, target: int, panel_bytes: int) -> None:
    """Panel after panel of 16 rows."""
    for first in range(0, rows, 16):
        panel = target + first // 16 * panel_bytes
        call5(pack, source + first * row_bytes, row_bytes, min(16, rows - first), k, panel)


@dataclass(frozen=True)
class Matrix:
    """Panels of one matrix [rows, k], or of `experts` of them, one after another."""

    data: NDArray[np.uint8]
    format: Format
    experts: int
    rows: int
    k: int

    @property
    def address(self) -> int:
        """Of the first panel."""
        return int(self.data.ctypes.data)

    @property
    def panels(self) -> int:
        """Of one expert."""
        return self.format.panels(self.rows)

    @property
    def panel_bytes(self) -> int:
        """Between panels."""
        return self.format.panel_bytes(self.k)


@dataclass(frozen=True)
class Rows:
    """An embedding as it is in the file, [rows, row_bytes]; `format` unpacks a row."""

    data: NDArray[np.uint8]
    format: Format
    k: int


@dataclass(frozen=True)
class Vector:
    """Floats."""

    data: NDArray[np.float32]


Loaded = Matrix | Rows | Vector


@dataclass(frozen=True)
class Layout:
    """What is to become of a tensor. `format` is that of the kernels; `expand` says that its type has none of its own,
    so that it becomes F32.
    """

    name: str
    kind: type[Loaded]
    stored: StoredWeight
    format: Format
    expand: bool

    @property
    def experts(self) -> int:
        """Matrices in the tensor."""
        return self.stored.shape[0] if len(self.stored.shape) == 3 else 1

    @property
    def nbytes(self) -> int:
        """Bytes it will take."""
        k, rows = self.stored.shape[-1], self.stored.shape[-2] if len(self.stored.shape) > 1 else 1
        if self.kind is Vector:
            return 4 * k
        if self.kind is Rows:
            return rows * self.format.type.row_bytes(k)
        return self.experts * self.format.panels(rows) * self.format.panel_bytes(k)

    def report(self) -> LoadedWeight:
        """For the load report."""
        words = {Vector: "float32", Rows: f"rows of {self.format.type.name}"}
        layout = words.get(self.kind, f"panels of {self.format.type.name}")
        name, growth = self.stored.type.name, self.format.growth
        note = ""
        if self.expand and self.kind is not Vector:
            note = f"{name} has no kernel: kept as F32, {32 / self.stored.type.bits_per_weight:.1f} times its size"
        elif self.kind is Matrix and growth > 1.1:
            note = f"{name} is kept as codes of single weights, {growth:.1f} times its size"
        return LoadedWeight(self.name, self.stored.type, layout, self.nbytes, note)


def plan_layouts(plan: Plan, provider: WeightProvider) -> dict[str, Layout]:
    """How to keep every weight of the plan. UnsupportedError names a tensor that cannot be one."""
    multiplied = {name for op in plan.ops for name in _matrices(op)}
    layouts = {}
    for name, weight in plan.weights.items():
        stored = provider.weights[name]
        if stored.type in WHOLE_NUMBERS:
            raise UnsupportedError(f"tensor {name}: integers ({stored.type.name}) cannot be weights")
        own = format_for(stored.type)
        plain = format_for(BlockType.F32)
        assert plain is not None
        kind: type[Loaded] = Matrix
        if weight.role is Role.VECTOR:
            kind, own = Vector, plain
        elif name not in multiplied:
            kind = Rows
        layouts[name] = Layout(name, kind, stored, own or plain, own is None or stored.type is not own.type)
    return layouts


def _matrices(op: object) -> Iterator[str]:
    if isinstance(op, Embed):
        return
    for field in ("weight", "gate", "up", "down"):
        name = getattr(op, field, None)
        if isinstance(name, str):
            yield name


def load_weights(
    layouts: Mapping[str, Layout], provider: WeightProvider, threads: int, progress: Callable[[int], None]
) -> dict[str, Loaded]:
    """Read and pack everything; `progress(bytes)` tells of each piece, in bytes of the file, from any thread's work
    but in this one.
    """
    loaded: dict[str, Loaded] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="edgert-load") as pool:
        for layout in layouts.values():
            if layout.kind is Vector:
                raw = provider.read(layout.name)
                loaded[layout.name] = Vector(np.ascontiguousarray(dequantize(raw, layout.stored.type).reshape(-1)))
                progress(raw.nbytes)
                continue
            item, pieces = _pieces(layout, provider)
            loaded[layout.name] = item
            for done in pool.map(lambda piece: piece(), pieces):
                progress(done)
    return loaded


def _pieces(layout: Layout, provider: WeightProvider) -> tuple[Loaded, list[Callable[[], int]]]:
    """The memory of a tensor, and what fills it piece by piece."""
    shape, form = layout.stored.shape, layout.format
    rows, k = shape[-2:]
    data = allocate(layout.nbytes)
    row_bytes = form.type.row_bytes(k)
    step = max(1, PIECE // max(row_bytes, layout.stored.type.row_bytes(k)) // LANES) * LANES

    def read(first: int, count: int) -> tuple[NDArray[np.uint8], int]:
        raw = provider.read(layout.name, first, count)
        if not layout.expand:
            return np.ascontiguousarray(raw), raw.nbytes
        return np.ascontiguousarray(dequantize(raw, layout.stored.type)).view(np.uint8), raw.nbytes

    def copy(first: int, count: int) -> int:
        raw, done = read(first, count)
        data.reshape(rows, row_bytes)[first : first + count] = raw
        return done

    def pack(expert: int, first: int, count: int) -> int:
        raw, done = read(expert * rows + first, count)
        panel_bytes = form.panel_bytes(k)
        target = data.ctypes.data + (expert * form.panels(rows) + first // LANES) * panel_bytes
        pack_panels(form.pack.address, raw.ctypes.data, row_bytes, count, k, target, panel_bytes)
        return done

    spans = [(first, min(step, rows - first)) for first in range(0, rows, step)]
    if layout.kind is Rows:
        return Rows(data, form, k), [partial(copy, *span) for span in spans]
    matrix = Matrix(data, form, layout.experts, rows, k)
    return matrix, [partial(pack, expert, *span) for expert in range(layout.experts) for span in spans]


def packing_kernels(layouts: Mapping[str, Layout]) -> list[Kernel]:
    """The kernels that loading needs."""
    packs = [layout.format.pack for layout in layouts.values() if layout.kind is Matrix]
    return list(dict.fromkeys([pack_panels, *packs]))
