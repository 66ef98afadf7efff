"""A checkpoint's tensors as a model knows them, whatever they are stored as.

A quantized weight is several stored tensors: codes, scales, zero points. A view makes one tensor of them, which is read
as floats, or as bytes of a GGUF type where such a type holds the same numbers to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from edgert_models.errors import FileFormatError
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType
from edgert_quant.checkpoint.folder import Checkpoint
from edgert_quant.checkpoint.safetensors import CheckpointTensor
from edgert_quant.files import quoted

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SCALES = ("F32", "F16", "BF16")
_PLAIN = {"F32": BlockType.F32, "F16": BlockType.F16, "BF16": BlockType.BF16}


class View(Protocol):
    """One tensor of a model. Its rows are counted over all axes but the last."""

    @property
    def name(self) -> str:
        """What the tensor would be called were it not quantized."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Outermost first."""

    @property
    def used(self) -> frozenset[str]:
        """The stored tensors that it is made of."""

    @property
    def form(self) -> str:
        """What it is stored as, for people: `BF16`, `fp8`, `gptq int4`."""

    @property
    def quantized(self) -> bool:
        """Whether it is more than one plain tensor of floats."""

    @property
    def types(self) -> tuple[BlockType, ...]:
        """GGUF types that hold it to the bit, the smallest first."""

    @property
    def reason(self) -> str:
        """Why `types` is empty; an empty text where it is not."""

    def rows(self, start: int, count: int) -> Floats:
        """Rows as floats [count, last axis]."""

    def packed(self, start: int, count: int, kind: BlockType) -> Bytes | None:
        """Rows as bytes [count, row bytes] of a type, None unless it is one of `types`."""


@dataclass(frozen=True)
class PlainView:
    """One stored tensor, as it is."""

    checkpoint: Checkpoint
    tensor: CheckpointTensor
    quantized: bool = False

    @property
    def name(self) -> str:
        """See `View`."""
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, ...]:
        """See `View`."""
        return self.tensor.shape

    @property
    def used(self) -> frozenset[str]:
        """See `View`."""
        return frozenset((self.tensor.name,))

    @property
    def form(self) -> str:
        """See `View`."""
        return self.tensor.dtype

    @property
    def types(self) -> tuple[BlockType, ...]:
        """See `View`."""
        return (_PLAIN[self.form],) if self.form in _PLAIN else ()

    @property
    def reason(self) -> str:
        """See `View`."""
        return "" if self.types else f"GGUF has no {self.form}"

    def rows(self, start: int, count: int) -> Floats:
        """See `View`."""
        return self.checkpoint.read_rows(self.name, start, count)

    def packed(self, start: int, count: int, kind: BlockType) -> Bytes | None:
        """See `View`: always None, numbers are checked as floats."""
        return None


def companion(
    checkpoint: Checkpoint,
    weight: str,
    name: str,
    what: str,
    shapes: tuple[tuple[int, ...], ...] | None,
    dtypes: tuple[str, ...],
) -> CheckpointTensor:
    """The tensor `name`, which belongs to `weight` and is its `what` ("scale", …), in one of `shapes` and `dtypes`.

    FileFormatError names both where it is missing, or is something else.
    """
    field = f"tensor {quoted(weight)}"
    tensor = checkpoint.tensors.get(name)
    if tensor is None:
        raise FileFormatError(checkpoint.folder, f"its {what} {name} is missing", field=field)
    if tensor.dtype not in dtypes:
        reason = f"its {what} {name} is stored as {tensor.dtype}, not {' or '.join(dtypes)}"
        raise FileFormatError(checkpoint.folder, reason, field=field)
    if shapes is not None and tensor.shape not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        raise FileFormatError(
            checkpoint.folder, f"its {what} {name} has shape {list(tensor.shape)}, not {wanted}", field=field
        )
    return tensor


def group_size(checkpoint: Checkpoint, weight: str, width: int, groups: int, given: object) -> int:
    """How many columns share a scale where `width` of them have `groups` scales, by themselves or as the config says.

    FileFormatError if neither fits.
    """
    if groups > 0 and width > 0 and width % groups == 0:
        return width // groups
    if width > 0 and isinstance(given, int) and given > 0 and -(-width // given) == groups:
        return given
    raise FileFormatError(
        checkpoint.folder, f"{groups} scales do not fit {width} columns", field=f"tensor {quoted(weight)}"
    )
