"""Weights on their way from a provider to the device: which form each takes, and filling it in pieces.

Memory for a tensor is taken once, in its final form, and filled piece by piece by all cores: what loading needs beside
that is a few pieces, however large the model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import Any

import mlx.core as mx
import numpy as np
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Plan, Role
from edgert_models.ops import Embed, Linear
from edgert_quant.blocks import BlockType, dequantize
from numpy.typing import NDArray

from edgert_runtimes.base import Float32, Int32, LoadedWeight, StoredWeight, WeightProvider
from edgert_runtimes.mlx.device import VARIABLE
from edgert_runtimes.mlx.forms import FORMS, GROUP, Form, pack
from edgert_runtimes.mlx.matrices import Dense, HostRows, Matrix, Packed, Raw

PIECE = 1 << 18
"""Weights that a thread repacks at once."""

SAMPLE = 16
"""Of so many pieces of a tensor, the errors of one are measured."""

Squares = tuple[float, float]

WHOLE_NUMBERS = (BlockType.I8, BlockType.I16, BlockType.I32, BlockType.I64)


@dataclass
class Layout:
    """What is to become of a tensor: blocks as they are (`raw`), packed in a `form`, or else floats. `dtype` is that of
    floats, of scales, and of products. `squares` sums up those of errors and of weights as pieces are measured.
    """

    name: str
    stored: StoredWeight
    dtype: mx.Dtype
    form: Form | None
    raw: bool
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    @property
    def nbytes(self) -> int:
        """Bytes it will take."""
        count = prod(self.stored.shape)
        if self.raw:
            return count // self.stored.type.block_size * self.stored.type.block_bytes
        return count * self.dtype.size if self.form is None else self.form.nbytes(count, self.dtype.size)

    def report(self) -> LoadedWeight:
        """For the load report, once it is filled."""
        floats = "float32" if self.dtype == mx.float32 else "float16"
        layout, how = floats, f"rounded to {floats}"
        if self.raw:
            layout = f"{self.stored.type.name} blocks"
        elif self.form is not None:
            layout = f"{self.form.mode}, {self.form.bits} bits"
            how = f"scales rounded to {floats}" if self.form.exact else "no exact form in MLX: rounded again"
        error = float(self.squares[0] / self.squares[1]) if self.squares[0] > 0 else 0.0
        note = f"{how}, relative error {error**0.5:.1e}" if error else ""
        return LoadedWeight(self.name, self.stored.type, layout, self.nbytes, note, error=error)


@dataclass(frozen=True)
class Weights:
    """Everything loaded, by GGUF name. `embeddings` are what rows are looked up in."""

    matrices: Mapping[str, Matrix]
    vectors: Mapping[str, mx.array]
    embeddings: Mapping[str, Matrix | HostRows]

    def vector(self, name: str | None) -> mx.array | None:
        """A vector that there may be."""
        return None if name is None else self.vectors[name]


def plan_layouts(
    plan: Plan, provider: WeightProvider, dtype: mx.Dtype, raw_types: Collection[BlockType]
) -> dict[str, Layout]:
    """How to keep every weight of the plan; those that stay with the provider have no layout. `raw_types` are those
    that kernels multiply by as they are. UnsupportedError names a tensor that cannot be a weight.
    """
    host = _looked_up_by_host(plan, provider, raw_types)
    multiplied = {op.weight for op in plan.ops if isinstance(op, Linear)}
    layouts = {}
    for name, weight in plan.weights.items():
        stored = provider.weights[name]
        if stored.type in WHOLE_NUMBERS:
            raise UnsupportedError(f"tensor {name}: integers ({stored.type.name}) cannot be weights")
        if name not in host or name in multiplied:
            kept = mx.float32 if weight.role.stays_float else dtype
            own = StoredWeight(stored.type, weight.shape)
            layouts[name] = Layout(name, own, kept, FORMS.get(stored.type), stored.type in raw_types)
    return layouts


def stored_bytes(layouts: Mapping[str, Layout]) -> int:
    """Bytes that will be read."""
    stored = [layout.stored for layout in layouts.values()]
    return sum(prod(each.shape[:-1]) * each.type.row_bytes(each.shape[-1]) for each in stored)


def load_weights(
    plan: Plan,
    layouts: Mapping[str, Layout],
    provider: WeightProvider,
    progress: Callable[[int], None],
    threads: int | None = None,
) -> Weights:
    """Fill every layout, with so many threads (None: one a CPU). UnsupportedError names a tensor whose numbers are too
    large for their type.
    """
    matrices: dict[str, Matrix] = {}
    vectors: dict[str, mx.array] = {}
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for name, layout in layouts.items():
            if plan.weights[name].role in (Role.VECTOR, Role.ADAPTER):
                raw = provider.read(name)
                vectors[name] = mx.array(dequantize(raw, layout.stored.type).reshape(layout.stored.shape))
                progress(raw.nbytes)
            else:
                matrices[name] = _fill(layout, provider, pool, progress)
    raw_types = {layout.stored.type for layout in layouts.values() if layout.raw}
    host = _looked_up_by_host(plan, provider, raw_types)
    embedded = {op.weight for op in plan.ops if isinstance(op, Embed)}
    embeddings = {name: HostRows(_unpack_rows(name, provider)) if name in host else matrices[name] for name in embedded}
    return Weights(matrices, vectors, embeddings)


def _looked_up_by_host(plan: Plan, provider: WeightProvider, raw_types: Collection[BlockType]) -> set[str]:
    """Embeddings that would lose something in MLX's forms: their rows are unpacked by the host."""
    types = {op.weight: provider.weights[op.weight].type for op in plan.ops if isinstance(op, Embed)}
    forms = {name: FORMS.get(kind) for name, kind in types.items() if kind not in raw_types}
    return {name for name, form in forms.items() if form is not None and not form.exact}


def _unpack_rows(name: str, provider: WeightProvider) -> Callable[[Int32], Float32]:
    stored, mapped = provider.weights[name], provider.map(name)

    def look_up(indices: Int32) -> Float32:
        if mapped is not None:
            return dequantize(mapped[indices], stored.type)
        return np.concatenate([dequantize(provider.read(name, int(i), 1), stored.type) for i in indices])

    return look_up


def _fill(
    layout: Layout, provider: WeightProvider, pool: ThreadPoolExecutor, progress: Callable[[int], None]
) -> Matrix:
    *outer, k = layout.stored.shape
    rows, form = prod(outer), layout.form

    def empty(width: int, dtype: mx.Dtype) -> tuple[mx.array, NDArray[Any]]:
        """An array of the device, and its memory as rows."""
        array = mx.zeros((*outer, width), dtype)
        mx.eval(array)
        return array, np.asarray(array).reshape(rows, width)

    matrix: Matrix
    if layout.raw:
        blocks, target = empty(layout.stored.type.row_bytes(k), mx.uint8)
        matrix, targets = Raw(blocks, layout.stored.type, layout.dtype), [target]
    elif form is None:
        weight, target = empty(k, layout.dtype)
        matrix, targets = Dense(weight), [target]
    else:
        codes, words = empty(k * form.bits // 32, mx.uint32)
        scales, steps = empty(k // GROUP, mx.uint8 if form.mode == "mxfp4" else layout.dtype)
        biases, floors = (None, None) if form.mode == "mxfp4" else empty(k // GROUP, layout.dtype)
        matrix = Packed(codes, scales, biases, form.bits, form.mode, layout.dtype)
        targets = [words, steps] if floors is None else [words, steps, floors]
    size = max(1, PIECE // k)

    def repack(first: int) -> tuple[int, Squares]:
        raw = provider.read(layout.name, first, min(size, rows - first))
        with np.errstate(all="ignore"):  # damaged files have any numbers
            parts = _converted(layout, raw)
            kept = [target[first : first + len(raw)] for target in targets]
            for part, target in zip(parts, kept, strict=True):
                target[:] = part
            _check_range(layout, parts, kept)
            measured = first // size % SAMPLE == 0
            return raw.nbytes, _squares(layout, raw, kept) if measured else (0.0, 0.0)

    for count, squares in pool.map(repack, range(0, rows, size)):
        layout.squares += squares
        progress(count)
    return matrix


def _converted(layout: Layout, raw: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """Rows as they are to be kept, but for the type of floats."""
    if layout.raw:
        return [raw]
    if layout.form is None:
        return [dequantize(raw, layout.stored.type)]
    codes, scales, biases = layout.form.split(raw)
    words = pack(codes.reshape(len(raw), -1), layout.form.bits).view(np.uint32)
    return [words, *(part.reshape(len(raw), -1) for part in (scales, biases) if part is not None)]


def _check_range(layout: Layout, given: Sequence[NDArray[Any]], kept: Sequence[NDArray[Any]]) -> None:
    """UnsupportedError where a number became infinite on the way."""
    for before, after in zip(given, kept, strict=True):
        if after.dtype == np.float16 and np.isinf(after).any() and not np.isinf(before).any():
            what = "its weights are" if layout.form is None else f"{layout.stored.type.name} blocks have scales"
            raise UnsupportedError(
                f"tensor {layout.name}: {what} too large for float16; set {VARIABLE}=float32, or use the cpu backend"
            )


def _squares(layout: Layout, raw: NDArray[np.uint8], kept: Sequence[NDArray[Any]]) -> Squares:
    """Of the errors of some rows, and of their weights; none where nothing can have changed."""
    form = layout.form
    if layout.raw or (form is not None and form.mode == "mxfp4"):
        return 0.0, 0.0
    wanted = dequantize(raw, layout.stored.type)
    found = kept[0]
    if form is not None:
        codes = form.split(raw)[0].reshape(len(raw), -1, GROUP).astype(np.float32)
        found = (kept[1][:, :, None] * codes + kept[2][:, :, None]).reshape(wanted.shape)
    error = found.astype(np.float64) - wanted
    return float(np.square(error).sum()), float(np.square(wanted, dtype=np.float64).sum())
