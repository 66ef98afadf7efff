"""The tensors of a checkpoint as the rows of GGUF tensors: what `edgert_models.sources` declares, done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from edgert_models.errors import ConversionError, UnsupportedError
from edgert_models.graph import Weight
from edgert_models.sources import Experts, ExpertVectors, RotaryRows, Stored, TransposedExperts
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.checkpoint import Checkpoint, mxfp4

Floats = NDArray[np.float32]
_FLOATS = ("F32", "F16", "BF16", "F64")


class TensorRows(Protocol):
    """Rows of one GGUF tensor."""

    @property
    def used(self) -> frozenset[str]:
        """The checkpoint tensors they come from."""

    @property
    def row_group(self) -> int:
        """See `Source.row_group`."""

    def read(self, start: int, count: int) -> Floats:
        """Rows as floats [count, in]; start and count are multiples of `row_group`."""


@dataclass(frozen=True)
class StoredRows:
    """One tensor as it is."""

    checkpoint: Checkpoint
    name: str
    row_group: int = 1

    @property
    def used(self) -> frozenset[str]:
        """See `TensorRows`."""
        return frozenset((self.name,))

    def read(self, start: int, count: int) -> Floats:
        """See `TensorRows`."""
        return self.checkpoint.read_rows(self.name, start, count)


@dataclass(frozen=True)
class InterleavedRows:
    """One tensor whose rows are heads of `row_group` rows; row i of a head's first half goes to 2i, of its second to
    2i + 1.
    """

    stored: StoredRows
    row_group: int

    @property
    def used(self) -> frozenset[str]:
        """See `TensorRows`."""
        return self.stored.used

    def read(self, start: int, count: int) -> Floats:
        """See `TensorRows`."""
        rows = self.stored.read(start, count)
        heads = rows.reshape(-1, 2, self.row_group // 2, rows.shape[1])
        return heads.swapaxes(1, 2).reshape(rows.shape)


@dataclass(frozen=True)
class InterleavedVector:
    """A bias of such rows: one row of as many columns."""

    stored: StoredRows
    head: int
    row_group: int = 1

    @property
    def used(self) -> frozenset[str]:
        """See `TensorRows`."""
        return self.stored.used

    def read(self, start: int, count: int) -> Floats:
        """See `TensorRows`."""
        row = self.stored.read(start, count)
        return row.reshape(-1, 2, self.head // 2).swapaxes(1, 2).reshape(row.shape)


@dataclass(frozen=True)
class ExpertRows:
    """A tensor an expert, of `rows` rows each."""

    checkpoint: Checkpoint
    names: tuple[str, ...]
    rows: int
    row_group: int = 1

    @property
    def used(self) -> frozenset[str]:
        """See `TensorRows`."""
        return frozenset(self.names)

    def read(self, start: int, count: int) -> Floats:
        """See `TensorRows`; rows of one expert only."""
        expert, first = divmod(start, self.rows)
        return self.checkpoint.read_rows(self.names[expert], first, count)


@dataclass(frozen=True)
class FusedRows:
    """`rows` rows an expert out of `stride`, from `offset` on."""

    checkpoint: Checkpoint
    name: str
    rows: int
    stride: int
    offset: int
    row_group: int = 1

    @property
    def used(self) -> frozenset[str]:
        """See `TensorRows`."""
        return frozenset((self.name,))

    def read(self, start: int, count: int) -> Floats:
        """See `TensorRows`; rows of one expert only."""
        expert, first = divmod(start, self.rows)
        return self.checkpoint.read_rows(self.name, expert * self.stride + self.offset + first, count)


@dataclass(frozen=True)
class TransposedRows:
    """Columns `part`, part + parts, … of an expert's matrix [in, parts · row_group], as rows."""

    checkpoint: Checkpoint
    name: str
    row_group: int
    part: int
    parts: int

    @property
    def used(self) -> frozenset[str]:
        """See `TensorRows`."""
        return frozenset((self.name,))

    def read(self, start: int, count: int) -> Floats:
        """See `TensorRows`; rows of one expert only."""
        matrix = self.checkpoint.read_slice(self.name, start // self.row_group)
        return np.ascontiguousarray(matrix[:, self.part :: self.parts].T)


@dataclass(frozen=True)
class Mxfp4Rows:
    """Rows `part`, part + parts, … of an expert's matrix [parts · row_group, in] in MXFP4."""

    checkpoint: Checkpoint
    blocks: str
    scales: str
    row_group: int
    part: int
    parts: int

    @property
    def used(self) -> frozenset[str]:
        """See `TensorRows`."""
        return frozenset((self.blocks, self.scales))

    def read_packed(self, start: int, count: int) -> NDArray[np.uint8]:
        """Rows as blocks of GGUF's MXFP4, uint8 [count, row bytes]; rows of one expert only."""
        expert = start // self.row_group
        blocks, scales = (self.checkpoint.read_raw(name, expert, 1)[0] for name in (self.blocks, self.scales))
        return mxfp4.repack(blocks[self.part :: self.parts], scales[self.part :: self.parts])

    def read(self, start: int, count: int) -> Floats:
        """See `TensorRows`; rows of one expert only."""
        return dequantize(self.read_packed(start, count), BlockType.MXFP4)


@dataclass(frozen=True)
class ExpertVectorRows:
    """A row for each expert: elements `part`, part + parts, … of what is stored."""

    stored: StoredRows
    part: int
    parts: int
    row_group: int = 1

    @property
    def used(self) -> frozenset[str]:
        """See `TensorRows`."""
        return self.stored.used

    def read(self, start: int, count: int) -> Floats:
        """See `TensorRows`."""
        return np.ascontiguousarray(self.stored.read(start, count)[:, self.part :: self.parts])


@dataclass(frozen=True)
class Computed:
    """A vector that no checkpoint has."""

    values: Sequence[float]
    row_group: int = 1
    used: frozenset[str] = frozenset()

    def read(self, start: int, count: int) -> Floats:
        """See `TensorRows`."""
        return np.asarray([self.values], np.float32)[start : start + count]


def find_rows(
    checkpoint: Checkpoint, weight: Weight, source: Stored | RotaryRows | Experts | TransposedExperts | ExpertVectors
) -> TensorRows:
    """Where a checkpoint has a weight. ConversionError names what is missing, or has the wrong shape."""
    if isinstance(source, Experts):
        return _find_experts(checkpoint, weight, source)
    if isinstance(source, TransposedExperts):
        return _find_transposed(checkpoint, weight, source)
    if isinstance(source, ExpertVectors):
        return _find_vectors(checkpoint, weight, source)
    name = next((name for name in source.names if name in checkpoint.tensors), None)
    if name is None:
        raise _missing(checkpoint, weight, source.names)
    found = checkpoint.tensors[name].shape
    _check(checkpoint, name, found if weight.stored_as(found) else weight.shape)
    stored = StoredRows(checkpoint, name)
    if isinstance(source, Stored):
        return stored
    if len(weight.shape) == 1:
        return InterleavedVector(stored, weight.shape[0] // source.heads)
    return InterleavedRows(stored, weight.shape[0] // source.heads)


def _find_experts(checkpoint: Checkpoint, weight: Weight, source: Experts) -> TensorRows:
    experts, out, width = weight.shape
    for fused in source.fused:
        if fused in checkpoint.tensors:
            _check(checkpoint, fused, (experts, source.parts * out, width))
            return FusedRows(checkpoint, fused, out, source.parts * out, source.part * out)
    for pattern in source.names:
        names = tuple(pattern.replace("{e}", str(e)) for e in range(experts))
        if names[0] in checkpoint.tensors:
            for name in names:
                if name not in checkpoint.tensors:
                    raise _missing(checkpoint, weight, (name,))
                _check(checkpoint, name, (out, width))
            return ExpertRows(checkpoint, names, out)
    raise _missing(checkpoint, weight, (*(name.replace("{e}", "0") for name in source.names), *source.fused))


def _find_transposed(checkpoint: Checkpoint, weight: Weight, source: TransposedExperts) -> TensorRows:
    experts, out, width = weight.shape
    codes, scales = f"{source.name}_blocks", f"{source.name}_scales"
    if codes in checkpoint.tensors:
        size = BlockType.MXFP4.block_size
        if width % size:
            reason = f"rows of {width} weights ({codes}) are no whole blocks of {size}"
            raise UnsupportedError(f"{checkpoint.folder}: {reason}")
        for name, shape in ((codes, (width // size, size // 2)), (scales, (width // size,))):
            if name not in checkpoint.tensors:
                raise _missing(checkpoint, weight, (name,))
            _check(checkpoint, name, (experts, source.parts * out, *shape), ("U8",))
        return Mxfp4Rows(checkpoint, codes, scales, out, source.part, source.parts)
    if source.name not in checkpoint.tensors:
        raise _missing(checkpoint, weight, (source.name, codes))
    _check(checkpoint, source.name, (experts, width, source.parts * out))
    return TransposedRows(checkpoint, source.name, out, source.part, source.parts)


def _find_vectors(checkpoint: Checkpoint, weight: Weight, source: ExpertVectors) -> TensorRows:
    if source.name not in checkpoint.tensors:
        raise _missing(checkpoint, weight, (source.name,))
    experts, width = weight.shape
    _check(checkpoint, source.name, (experts, source.parts * width))
    return ExpertVectorRows(StoredRows(checkpoint, source.name), source.part, source.parts)


def _check(checkpoint: Checkpoint, name: str, wanted: tuple[int, ...], dtypes: tuple[str, ...] = _FLOATS) -> None:
    found, dtype = checkpoint.tensors[name].shape, checkpoint.tensors[name].dtype
    if dtype not in dtypes:
        raise UnsupportedError(
            f"{checkpoint.folder}: tensor {name} is stored as {dtype}; edgert converts {', '.join(dtypes)}"
        )
    if found != wanted:
        raise ConversionError(
            f"{checkpoint.folder}: tensor {name} has shape {list(found)}, and config.json says {list(wanted)}"
        )


def _missing(checkpoint: Checkpoint, weight: Weight, names: Sequence[str]) -> ConversionError:
    return ConversionError(
        f"{checkpoint.folder}: the checkpoint has no tensor {' or '.join(names)}, needed for {weight.name}"
    )
