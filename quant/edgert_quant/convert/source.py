"""What a conversion reads from: a checkpoint or a GGUF file, seen the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from edgert_models.graph import Weight
from edgert_models.spec import ModelSpec
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType
from edgert_quant.gguf import ValueType


@dataclass(frozen=True, slots=True)
class MetadataEntry:
    """A value for the output's metadata; `type` is the value's, or that of a list's items, None to infer it."""

    value: str | bool | int | float | Sequence[object] | NDArray[np.generic]
    type: ValueType | None = None


class Source(Protocol):
    """A model to convert. Weights are matrices of rows: [experts, out, in] has experts · out rows of `in`."""

    @property
    def paths(self) -> Sequence[Path]:
        """Files of the source."""

    @property
    def spec(self) -> ModelSpec:
        """What kind of model it is."""

    @property
    def weights(self) -> Mapping[str, Weight]:
        """Every tensor of the output, in the order in which the file shall have them."""

    @property
    def fixed_types(self) -> Mapping[str, BlockType]:
        """Tensors that keep their type, whatever the recipe; rules may still change it for matrices."""

    @property
    def warnings(self) -> Sequence[str]:
        """What the user should know of it."""

    def metadata(self) -> dict[str, MetadataEntry]:
        """Everything but what the recipe decides."""

    def row_group(self, name: str) -> int:
        """Rows that must be read together: pieces start and end at multiples of it."""

    def read(self, name: str, start: int, count: int, kind: BlockType) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Rows as floats [count, in], exactly as stored; or as bytes [count, row_bytes] if stored as `kind` already."""

    @property
    def default_type(self) -> str:
        """The recipe to take if none is named."""

    def native_types(self) -> Mapping[str, BlockType]:
        """The type that keeps of each tensor what the source has, or comes near to it."""

    def forms(self, types: Mapping[str, BlockType]) -> Mapping[str, tuple[str, str]]:
        """Tensors that are quantized already and lose by `types`: what they are stored as, and why no type keeps it."""

    def close(self) -> None:
        """Close files."""


def some(names: Sequence[str]) -> str:
    """The first of many names, for messages."""
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
