"""Weight providers, and the checks that every backend makes of them before loading."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from edgert_models.errors import FileFormatError
from edgert_models.graph import Plan, Role
from edgert_models.ops import Embed, Moe
from edgert_quant.blocks import BlockType
from edgert_quant.gguf import GgufFile, GgufTensor
from edgert_quant.together import HeadTensor, split_tensors
from numpy.typing import NDArray

from edgert_runtimes.base import StoredWeight, WeightProvider


class GgufWeights:
    """The tensors of an open GGUF file (which stays the caller's to close), and those that are made of one."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self._made = split_tensors(file)
        tensors: dict[str, GgufTensor | HeadTensor] = {**file.tensors, **self._made}
        self.weights: Mapping[str, StoredWeight] = {
            name: StoredWeight(tensor.type, tensor.shape) for name, tensor in tensors.items()
        }

    def read(self, name: str, start: int = 0, count: int | None = None) -> NDArray[np.uint8]:
        """See WeightProvider."""
        return self._made[name].read(start, count) if name in self._made else self._file.read(name, start, count)

    def map(self, name: str) -> NDArray[np.uint8] | None:
        """See WeightProvider."""
        return None if name in self._made else self._file.map(name)

    def check(self) -> None:
        """See WeightProvider."""
        self._file.check_size()


class MemoryWeights:
    """Tensors held in memory: name → (type, shape, rows as uint8 [rows, row_bytes])."""

    def __init__(self, tensors: Mapping[str, tuple[BlockType, tuple[int, ...], NDArray[np.uint8]]]) -> None:
        self._rows = {name: rows for name, (_, _, rows) in tensors.items()}
        self.weights: Mapping[str, StoredWeight] = {
            name: StoredWeight(block_type, shape) for name, (block_type, shape, _) in tensors.items()
        }

    def read(self, name: str, start: int = 0, count: int | None = None) -> NDArray[np.uint8]:
        """See WeightProvider."""
        rows = self._rows[name]
        return rows[start : None if count is None else start + count].copy()

    def map(self, name: str) -> NDArray[np.uint8] | None:
        """See WeightProvider."""
        return self._rows[name]

    def check(self) -> None:
        """Memory stays."""


class JoinedWeights:
    """The tensors of a provider, and others that are held in memory."""

    def __init__(self, first: WeightProvider, more: MemoryWeights) -> None:
        self._first = first
        self._more = more
        self.weights: Mapping[str, StoredWeight] = {**first.weights, **more.weights}

    def read(self, name: str, start: int = 0, count: int | None = None) -> NDArray[np.uint8]:
        """See WeightProvider."""
        return (self._more if name in self._more.weights else self._first).read(name, start, count)

    def map(self, name: str) -> NDArray[np.uint8] | None:
        """See WeightProvider."""
        return (self._more if name in self._more.weights else self._first).map(name)

    def check(self) -> None:
        """See WeightProvider."""
        self._first.check()


def check_weights(plan: Plan, provider: WeightProvider, path: str = "weights") -> None:
    """Raise FileFormatError unless every tensor of the plan has its shape, and vectors are floats."""
    for weight in plan.weights.values():
        stored = provider.weights.get(weight.name)
        if stored is None:
            raise FileFormatError(path, "the tensor is missing", field=f"tensor {weight.name}")
        if not weight.stored_as(stored.shape):
            reason = f"the shape is {list(stored.shape)}, the model needs {list(weight.shape)}"
            raise FileFormatError(path, reason, field=f"tensor {weight.name}")
        floats = (BlockType.F32, BlockType.F16, BlockType.BF16)
        if weight.role is Role.VECTOR and stored.type not in floats:
            reason = f"a vector of type {stored.type.name}; only F32, F16 and BF16 vectors make sense"
            raise FileFormatError(path, reason, field=f"tensor {weight.name}")


def weight_bytes_per_token(plan: Plan, provider: WeightProvider) -> int:
    """Bytes of weights that decoding one token reads: matrices whole, of experts those used, of the embedding one row
    (and all of it where it is the output matrix too).
    """
    experts_read = {
        name: (op.used, op.experts)
        for op in plan.ops
        if isinstance(op, Moe)
        for name in (op.gate, op.up, op.down, op.gate_bias, op.up_bias, op.down_bias)
    }
    looked_up = {op.weight for op in plan.ops if isinstance(op, Embed)}
    total = 0
    for name, weight in plan.weights.items():
        if weight.role is Role.ADAPTER:
            continue  # who reads which is not known
        stored = provider.weights[name]
        row = stored.type.row_bytes(weight.shape[-1])
        nbytes = row * int(np.prod(weight.shape[:-1], dtype=np.int64))
        used, experts = experts_read.get(name, (1, 1))
        only_looked_up = name in looked_up and not plan.spec.tied
        total += row if only_looked_up else nbytes * used // experts
    return total
