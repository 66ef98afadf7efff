"""The tensors of a checkpoint as the rows of GGUF tensors: what `edgert_models.sources` declares, done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from edgert_models.errors import ConversionError, UnsupportedError
from edgert_models.graph import Role, Weight
from edgert_models.sources import (
    Arranged,
    Experts,
    ExpertVectors,
    HeadRows,
    RopeFactors,
    Scaled,
    Source,
    Stored,
    TransposedExperts,
)
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType
from edgert_quant.checkpoint import View

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Take = Callable[[View, int, int], NDArray[Any]]
"""take(view, start, count): rows of a view, as floats or as bytes."""

_COMPARED = 4096  # rows at once
_FLOATS = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True, kw_only=True)
class TensorRows(ABC):
    """Rows of one GGUF tensor: which rows of which views they are, in which order.

    Reading starts and ends at multiples of `row_group`, and within one expert. `whole`: rows are moved, but not made
    anew of single numbers.
    """

    views: tuple[View, ...]
    row_group: int = 1
    whole: ClassVar[bool] = True

    @abstractmethod
    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """Rows [count, …] of what `take` gives for rows of views."""

    @property
    def used(self) -> frozenset[str]:
        """The checkpoint's tensors that they come from."""
        return frozenset(view.name for view in self.views)

    @property
    def quantized(self) -> bool:
        """Whether any of them is quantized already."""
        return any(view.quantized for view in self.views)

    @cached_property
    def types(self) -> tuple[BlockType, ...]:
        """Types of GGUF that hold them to the bit, the smallest first."""
        if not self.whole or not self.views:
            return ()
        first, *others = self.views
        return tuple(kind for kind in first.types if all(kind in view.types for view in others))

    @property
    def reason(self) -> str:
        """Why there are no `types`, an empty text where there are."""
        if self.types:
            return ""
        return next((view.reason for view in self.views if view.reason), "its experts have no type in common")

    def read(self, start: int, count: int) -> Floats:
        """Rows as floats [count, in]."""
        return self.take(start, count, lambda view, first, rows: view.rows(first, rows))

    def packed(self, start: int, count: int, kind: BlockType) -> Bytes | None:
        """Rows as bytes [count, row bytes]; None where they are no such bytes yet."""
        if not self.quantized or kind not in self.types:
            return None

        def take(view: View, first: int, rows: int) -> Bytes:
            data = view.packed(first, rows, kind)
            assert data is not None, f"{view.name} said that it is {kind.name}"
            return data

        return np.ascontiguousarray(self.take(start, count, take))


@dataclass(frozen=True, kw_only=True)
class StoredRows(TensorRows):
    """One tensor as it is, from row `first` on."""

    first: int = 0

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        return take(self.views[0], self.first + start, count)


@dataclass(frozen=True, kw_only=True)
class ShiftedRows(TensorRows):
    """One tensor to whose every element `plus` is added."""

    plus: float
    whole: ClassVar[bool] = False

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        return take(self.views[0], start, count) + np.float32(self.plus)


@dataclass(frozen=True, kw_only=True)
class ScaledRows(TensorRows):
    """One tensor whose every row is multiplied with a factor of its own (a vector: with the first)."""

    factors: Floats
    whole: ClassVar[bool] = False

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        return take(self.views[0], start, count) * self.factors[start : start + count, None]


@dataclass(frozen=True, kw_only=True)
class OrderedRows(TensorRows):
    """Rows of one tensor in an order of their own."""

    order: NDArray[np.intp]

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`: what is stored in a row is read at once."""
        wanted = self.order[start : start + count]
        borders = np.flatnonzero(np.diff(wanted) != 1) + 1
        runs = [run for run in np.split(wanted, borders) if len(run)]
        return np.concatenate([take(self.views[0], int(run[0]), len(run)) for run in runs])


@dataclass(frozen=True, kw_only=True)
class ShapedRows(TensorRows):
    """All numbers of a small tensor in another shape."""

    shape: tuple[int, ...]
    exponential: int = 0
    whole: ClassVar[bool] = False

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        everything = take(self.views[0], 0, prod(self.views[0].shape[:-1]))
        rows = everything.reshape(-1, self.shape[-1])[start : start + count]
        return self.exponential * np.exp(rows) if self.exponential else rows


@dataclass(frozen=True, kw_only=True)
class OrderedColumns(TensorRows):
    """Columns of one tensor (elements of a vector) in an order of their own, if there is one."""

    order: NDArray[np.intp] | None
    exponential: int = 0
    whole: ClassVar[bool] = False

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        rows = take(self.views[0], start, count)
        rows = rows if self.order is None else np.ascontiguousarray(rows[:, self.order])
        return self.exponential * np.exp(rows) if self.exponential else rows


@dataclass(frozen=True, kw_only=True)
class InterleavedRows(TensorRows):
    """One tensor whose rows are heads of `row_group` rows. Of the first `rotated` rows of a head, row i of the first
    half goes to 2i, of the second to 2i + 1.
    """

    rotated: int

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        rows = take(self.views[0], start, count)
        return rows.reshape(-1, self.row_group, rows.shape[1])[:, interleaved(self.row_group, self.rotated)].reshape(
            rows.shape
        )


@dataclass(frozen=True, kw_only=True)
class InterleavedVector(TensorRows):
    """A bias of such rows: one row of as many columns."""

    head: int
    rotated: int
    whole: ClassVar[bool] = False

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        row = take(self.views[0], start, count)
        return row.reshape(-1, self.head)[:, interleaved(self.head, self.rotated)].reshape(row.shape)


def interleaved(size: int, rotated: int) -> NDArray[np.intp]:
    """Where the elements of a head come from."""
    turned = np.arange(rotated).reshape(2, -1).T.reshape(-1)
    return np.concatenate([turned, np.arange(rotated, size)])


@dataclass(frozen=True, kw_only=True)
class ExpertRows(TensorRows):
    """A view an expert, of `rows` rows each."""

    rows: int

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        expert, first = divmod(start, self.rows)
        return take(self.views[expert], first, count)


@dataclass(frozen=True, kw_only=True)
class FusedRows(TensorRows):
    """`rows` rows an expert out of `stride`, from `offset` on."""

    rows: int
    stride: int
    offset: int

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        expert, first = divmod(start, self.rows)
        return take(self.views[0], expert * self.stride + self.offset + first, count)


@dataclass(frozen=True, kw_only=True)
class TransposedHeads(TensorRows):
    """The first `rows` of every `stride` rows, as columns of a matrix of `row_group` rows."""

    rows: int
    stride: int
    whole: ClassVar[bool] = False

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`; the whole matrix."""
        matrix = take(self.views[0], start // self.row_group * self.stride, self.rows)
        return np.ascontiguousarray(matrix.T)


@dataclass(frozen=True, kw_only=True)
class EveryRows(TensorRows):
    """Rows `part`, part + parts, … of one tensor."""

    part: int
    parts: int

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        return take(self.views[0], start * self.parts, count * self.parts)[self.part :: self.parts]


@dataclass(frozen=True, kw_only=True)
class TransposedRows(TensorRows):
    """`row_group` columns of an expert's matrix [width, …], `first`, first + step, …, as rows."""

    width: int
    first: int
    step: int
    whole: ClassVar[bool] = False

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`; the whole expert."""
        matrix = take(self.views[0], start // self.row_group * self.width, self.width)
        return np.ascontiguousarray(matrix[:, self.first :: self.step][:, : self.row_group].T)


@dataclass(frozen=True, kw_only=True)
class ExpertVectorRows(TensorRows):
    """A row for each expert: elements `part`, part + parts, … of what is stored."""

    part: int
    parts: int
    whole: ClassVar[bool] = False

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        return np.ascontiguousarray(take(self.views[0], start, count)[:, self.part :: self.parts])


@dataclass(frozen=True, kw_only=True)
class Computed(TensorRows):
    """A vector that no checkpoint has."""

    values: Sequence[float]
    views: tuple[View, ...] = ()

    def take(self, start: int, count: int, take: Take) -> NDArray[Any]:
        """See `TensorRows`."""
        return np.asarray([self.values], np.float32)[start : start + count]


@dataclass(frozen=True)
class Finder:
    """Finds weights in the views of a checkpoint. ConversionError names what is missing, or has the wrong shape."""

    folder: Path
    views: Mapping[str, View]
    config: Mapping[str, Any] = field(default_factory=dict)

    def find(self, weight: Weight, source: Source) -> TensorRows:
        """Where the checkpoint has a weight."""
        assert not isinstance(source, RopeFactors), f"{weight.name} is in no checkpoint"
        if isinstance(source, Experts):
            return self._experts(weight, source)
        if isinstance(source, TransposedExperts):
            return self._transposed(weight, source)
        if isinstance(source, HeadRows):
            return self._head_rows(weight, source)
        if isinstance(source, ExpertVectors):
            experts, width = weight.shape
            vectors = (self._checked(weight, source.names, (experts, source.parts * width)),)
            return ExpertVectorRows(views=vectors, part=source.part, parts=source.parts)
        if isinstance(source, Arranged):
            return self._arranged(weight, source)
        if isinstance(source, Stored) and source.parts > 1:
            rows = weight.shape[0]
            whole = self._checked(weight, source.names, (source.parts * rows, *weight.shape[1:]))
            return StoredRows(views=(whole,), first=source.part * rows)
        stored = (self._checked(weight, source.names, weight.shape),)
        if isinstance(source, Scaled):
            rows = prod(weight.shape[:-1])
            parts = [np.full(count or rows, factor, np.float32) for count, factor in source.factors(self.config)]
            return ScaledRows(views=stored, factors=np.concatenate(parts)[:rows])
        if isinstance(source, Stored):
            return ShiftedRows(views=stored, plus=source.plus) if source.plus else StoredRows(views=stored)
        if len(weight.shape) == 1:
            return InterleavedVector(views=stored, head=weight.shape[0] // source.heads, rotated=source.rotated)
        return InterleavedRows(views=stored, row_group=weight.shape[0] // source.heads, rotated=source.rotated)

    def has(self, source: Source) -> bool:
        """Whether anything is there that a weight could be made of."""
        if isinstance(source, RopeFactors):
            return True
        names = (name.replace("{e}", "0") for name in source.names)
        fused = source.fused if isinstance(source, Experts) else ()
        return any(name in self.views for name in (*names, *fused))

    def fits(self, weight: Weight, source: Source) -> bool:
        """Whether a weight can be made of what is there."""
        try:
            return isinstance(source, RopeFactors) or self.find(weight, source) is not None
        except ConversionError:
            return False

    def differ(self, one: Source | None, other: Source | None) -> bool:
        """Whether both are stored, as tensors that are not the same."""
        a, b = (self._first(source.names) if isinstance(source, Stored | Scaled) else None for source in (one, other))
        if a is None or b is None or a.name == b.name:
            return False
        counts = ((i, min(_COMPARED, a.shape[0] - i)) for i in range(0, a.shape[0], _COMPARED))
        return a.shape != b.shape or not all(np.array_equal(a.rows(*rows), b.rows(*rows)) for rows in counts)

    def _arranged(self, weight: Weight, source: Arranged) -> TensorRows:
        groups = source.arrangement
        if groups is None and weight.role is Role.VECTOR:
            view = self._first(source.names)
            as_many = view is not None and prod(view.shape) == prod(weight.shape)
            whole = (self._checked(weight, source.names, view.shape if view and as_many else weight.shape),)
            return ShapedRows(views=whole, shape=weight.shape, exponential=source.exponential)
        order = None if groups is None else np.array(groups.order(), np.intp)
        total = weight.shape[-1 if source.columns else 0] if groups is None else groups.total
        if source.columns or len(weight.shape) == 1:
            columns = (self._checked(weight, source.names, (*weight.shape[:-1], total)),)
            return OrderedColumns(views=columns, order=order, exponential=source.exponential)
        rows = (self._checked(weight, source.names, (total, *weight.shape[1:])),)
        return StoredRows(views=rows) if order is None else OrderedRows(views=rows, order=order)

    def _experts(self, weight: Weight, source: Experts) -> TensorRows:
        experts, out, width = weight.shape
        stride = source.parts * out
        for fused in source.fused:
            if fused in self.views:
                whole = (self._checked(weight, (fused,), (experts, stride, width)),)
                return FusedRows(views=whole, rows=out, stride=stride, offset=source.part * out)
        for pattern in source.names:
            names = [pattern.replace("{e}", str(e)) for e in range(experts)]
            if names[0] in self.views:
                views = tuple(self._checked(weight, (name,), (out, width)) for name in names)
                return ExpertRows(views=views, rows=out)
        raise self._missing(weight, (*(name.replace("{e}", "0") for name in source.names), *source.fused))

    def _head_rows(self, weight: Weight, source: HeadRows) -> TensorRows:
        heads, out, width = weight.shape
        rank = out if source.keys else width
        views = (self._checked(weight, source.names, (heads * source.size, rank)),)
        if source.keys:
            return TransposedHeads(views=views, row_group=out, rows=width, stride=source.size)
        return FusedRows(views=views, rows=out, stride=source.size, offset=source.first)

    def _transposed(self, weight: Weight, source: TransposedExperts) -> TensorRows:
        experts, out, width = weight.shape
        view = self._first(source.names)
        if view is None:
            raise self._missing(weight, (*source.names, f"{source.names[0]}_blocks"))
        if BlockType.MXFP4 in view.types:
            views = (self._checked(weight, source.names, (experts, source.parts * out, width)),)
            return EveryRows(views=views, part=source.part, parts=source.parts)
        views = (self._checked(weight, source.names, (experts, width, source.parts * out)),)
        first, step = (source.part, source.parts) if source.in_turns else (source.part * out, 1)
        return TransposedRows(views=views, row_group=out, width=width, first=first, step=step)

    def _checked(self, weight: Weight, names: Sequence[str], wanted: tuple[int, ...]) -> View:
        """The first of these that is there, in the shape that it must have."""
        view = self._first(names)
        if view is None:
            raise self._missing(weight, names)
        if not view.quantized and view.form not in _FLOATS:
            raise UnsupportedError(
                f"{self.folder}: tensor {view.name} is stored as {view.form}; edgert converts {', '.join(_FLOATS)}"
            )
        flat = (prod(wanted[:-1]), wanted[-1]) if weight.role is Role.EXPERTS else wanted
        if view.shape not in (wanted, flat) and not (wanted == weight.shape and weight.stored_as(view.shape)):
            raise ConversionError(
                f"{self.folder}: tensor {view.name} has shape {list(view.shape)}, and config.json says {list(wanted)}"
            )
        return view

    def _first(self, names: Sequence[str]) -> View | None:
        """The first of these that is there."""
        return next((self.views[name] for name in names if name in self.views), None)

    def _missing(self, weight: Weight, names: Sequence[str]) -> ConversionError:
        return ConversionError(
            f"{self.folder}: the checkpoint has no tensor {' or '.join(names)}, needed for {weight.name}"
        )
