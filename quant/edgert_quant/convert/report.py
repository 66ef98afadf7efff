"""What a conversion did, for people (the command line prints it) and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from edgert_quant.blocks import BlockType

_WANT_IMPORTANCE = [BlockType[name] for name in ("IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")]


@dataclass(frozen=True)
class TypeTotal:
    """All tensors of one block type: how many, of how many weights and bytes."""

    type: str
    tensors: int
    weights: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class TypeLoss:
    """All tensors of one form (`fp8`, …) that became one type: √(Σ (stored - source)² / Σ source²), and why no type
    holds them as they are.
    """

    form: str
    type: str
    tensors: int
    relative_rms: float
    reason: str

    def __str__(self) -> str:
        what = f"{self.tensors} tensors" if self.tensors > 1 else "1 tensor"
        return (
            f"{what} of {self.form} became {self.type}, which is {100 * self.relative_rms:.2g} % off (relative rms): "
            f"{self.reason}"
        )


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """The result of a conversion. `types` has the largest total first; `bytes` is the size of the output file.

    `warnings` are sentences about what a reader should know: other programs that run the file differently, losses that
    were asked for, parts of the source that were left out. `losses` are those of a quantized checkpoint whose form GGUF
    does not have, measured with the type `native`.
    """

    source: str
    output: Path
    architecture: str
    recipe: str
    types: tuple[TypeTotal, ...]
    bytes: int
    seconds: float
    warnings: tuple[str, ...]
    losses: tuple[TypeLoss, ...] = ()

    @property
    def tensors(self) -> int:
        """Tensors of all types."""
        return sum(total.tensors for total in self.types)

    @property
    def weights(self) -> int:
        """Weights of all tensors."""
        return sum(total.weights for total in self.types)

    @property
    def bits_per_weight(self) -> float:
        """Average over all tensors, scales included, metadata not."""
        return 8 * sum(total.bytes for total in self.types) / self.weights

    def to_dict(self) -> dict[str, object]:
        """Everything, as JSON knows it."""
        return {
            **asdict(self),
            "output": str(self.output),
            "tensors": self.tensors,
            "weights": self.weights,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "seconds": round(self.seconds, 3),
        }

    def to_json(self) -> str:
        """One JSON object on one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


def advice(types: Iterable[BlockType]) -> list[str]:
    """What to know of a model with matrices that were quantized to these types without importance; llama-quantize
    refuses to make such files.
    """
    found = set(types)
    names = ", ".join(kind.name for kind in _WANT_IMPORTANCE if kind in found)
    text = f"quantized to {names} without importance: so few bits lose much; an importance matrix is advisable"
    return [text] if names else []


def totals(shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, BlockType]) -> tuple[TypeTotal, ...]:
    """Tensors, weights and bytes by type, largest first."""

    def total(kind: BlockType, members: Iterable[tuple[int, ...]]) -> TypeTotal:
        sizes = list(members)
        weights = sum(prod(shape) for shape in sizes)
        return TypeTotal(kind.name, len(sizes), weights, sum(tensor_bytes(kind, shape) for shape in sizes))

    kinds = dict.fromkeys(types.values())
    found = [total(kind, (shapes[name] for name, own in types.items() if own is kind)) for kind in kinds]
    return tuple(sorted(found, key=lambda entry: (-entry.bytes, entry.type)))


def tensor_bytes(kind: BlockType, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of `shape` (outermost dimension first)."""
    return prod(shape[:-1]) * kind.row_bytes(shape[-1])
