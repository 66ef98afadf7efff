"""Sums of squared inputs while a model runs, and their state on disk between runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edgert_models.errors import BackendError, FileFormatError, RequestError
from edgert_models.graph import Plan, Role, Weight
from edgert_quant.blocks import BlockType
from edgert_quant.gguf import GgufFile, GgufWriter
from edgert_quant.imatrix import Sums
from edgert_runtimes.layerwise import Observer
from numpy.typing import NDArray

_OUTPUT = "output.weight"
_LAYER = "blk."
_KEY = "edgert.calibrate."
_TYPE = "calibration"
_SUMS, _COUNTS = ".in_sum2", ".counts"


class SquaredInputs(Observer):
    """Adds up, in float64, the squares of what enters each of `weights`, expert by expert.

    BackendError names the first weight with an input that is no number.
    """

    def __init__(self, weights: Iterable[Weight]) -> None:
        self.squares: dict[str, NDArray[np.float64]] = {}
        self.counts: dict[str, NDArray[np.int64]] = {}
        for weight in weights:
            experts = weight.shape[0] if weight.role.stacked else 1
            self.squares[weight.name] = np.zeros((experts, weight.shape[-1]))
            self.counts[weight.name] = np.zeros(experts, np.int64)

    @classmethod
    def as_llama_imatrix(cls, plan: Plan, *, output: bool = False) -> SquaredInputs:
        """Of each matrix of the layers, routers among them; and of the output matrix, where `output` asks for it and
        the model has one of its own: what `llama-imatrix` collects.
        """

        def collected(weight: Weight) -> bool:
            inner = weight.name.startswith(_LAYER) and weight.role not in (Role.EMBEDDING, Role.VECTOR)
            return inner or (output and weight.name == _OUTPUT)

        return cls(weight for weight in plan.weights.values() if collected(weight))

    def matrix(self, name: str, x: NDArray[np.floating[Any]]) -> None:
        """See `Observer`."""
        self._add(name, 0, x)

    def expert(self, name: str, expert: int, x: NDArray[np.floating[Any]], rows: NDArray[np.intp]) -> None:
        """See `Observer`."""
        self._add(name, expert, x)

    def _add(self, name: str, index: int, x: NDArray[np.floating[Any]]) -> None:
        if name in self.squares:
            squares = np.square(x).sum(axis=0, dtype=np.float64)
            if not np.isfinite(squares).all():
                raise BackendError(f"inputs of {name} are no numbers; weights are damaged, or activations overflow")
            self.squares[name][index] += squares
            self.counts[name][index] += len(x)

    def sums(self) -> dict[str, Sums]:
        """As an importance matrix has them."""
        return {name: Sums(own.astype(np.float32), self.counts[name].copy()) for name, own in self.squares.items()}


class Checkpoint:
    """The state of a run, in a file beside its output: sums in full precision, and how many windows they are of.

    `identity` says what is measured, by name: model, text, window. A file of another run is not taken.
    """

    def __init__(self, output: Path, identity: Mapping[str, str]) -> None:
        self.path = output.with_name(f"{output.name}.checkpoint")
        self._identity = identity

    def load(self, into: SquaredInputs) -> int:
        """Put what was saved `into` sums; the windows it is of, 0 where there is nothing.

        RequestError where the file is of another model, text or window; FileFormatError where it is damaged.
        """
        if not self.path.exists():
            return 0
        with GgufFile.open(self.path) as file:
            if file.metadata.string("general.type", "") != _TYPE:
                raise FileFormatError(self.path, "is no state of a calibration; remove it", field="general.type")
            for what, value in self._identity.items():
                if file.metadata.string(_KEY + what, "") != value:
                    reason = f"is the state of a calibration with another {what}: remove it, or name another output"
                    raise RequestError(f"{self.path}: {reason}", parameter="output")
            for name in into.squares:
                into.squares[name][:] = _read(file, name + _SUMS, BlockType.F64, into.squares[name].shape)
                into.counts[name][:] = _read(file, name + _COUNTS, BlockType.I64, into.counts[name].shape)
            return file.metadata.integer(_KEY + "done", minimum=0)

    def save(self, found: SquaredInputs, done: int) -> None:
        """Write the state, whole or not at all."""
        with GgufWriter(self.path) as writer:
            writer.add_metadata("general.type", _TYPE)
            for what, value in self._identity.items():
                writer.add_metadata(_KEY + what, value)
            writer.add_metadata(_KEY + "done", done)
            for name, squares in found.squares.items():
                writer.add_tensor(name + _SUMS, BlockType.F64, squares.shape)
                writer.add_tensor(name + _COUNTS, BlockType.I64, found.counts[name].shape)
            writer.begin()
            for name, squares in found.squares.items():
                writer.write(name + _SUMS, squares.astype("<f8", copy=False))
                writer.write(name + _COUNTS, found.counts[name].astype("<i8", copy=False))

    def remove(self) -> None:
        """What is finished needs no state."""
        self.path.unlink(missing_ok=True)


def _read(file: GgufFile, name: str, kind: BlockType, shape: tuple[int, ...]) -> NDArray[Any]:
    tensor = file.tensor(name)
    if tensor.type is not kind or tensor.shape != shape:
        reason = f"is {tensor.type.name} {list(tensor.shape)}, not {kind.name} {list(shape)}; remove the file"
        raise FileFormatError(file.path, reason, field=f"tensor {name}")
    return file.read(name).reshape(-1).view("<f8" if kind is BlockType.F64 else "<i8").reshape(shape)
