"""Weights on their way to the GPU: matrices as they lie in the file, vectors as floats. Only a type that has no
kernels is turned into another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Plan, Role
from edgert_models.ops import HeadLinear
from edgert_quant.blocks import BlockType, dequantize

from edgert_runtimes.base import LoadedWeight, StoredWeight, WeightProvider
from edgert_runtimes.cuda.device import Bytes, Device, Event, Queue
from edgert_runtimes.cuda.kernels import catalogue

PIECE = 16 << 20
"""Bytes of pinned memory that a piece of a tensor goes through; there are two, so that one is filled while the other is
copied.
"""

SLACK = 256
"""Bytes after every tensor that kernels may read, though they use none of them."""

WHOLE_NUMBERS = (BlockType.I8, BlockType.I16, BlockType.I32, BlockType.I64)


@dataclass(frozen=True)
class Tensor:
    """What is to become of a tensor: its type on the GPU, and `slots` of its experts where not all are kept there."""

    name: str
    stored: StoredWeight
    type: BlockType
    slots: int | None = None

    @property
    def rows(self) -> int:
        """Through all experts."""
        return int(np.prod(self.stored.shape[:-1], dtype=np.int64))

    @property
    def row_bytes(self) -> int:
        """On the GPU."""
        return self.type.row_bytes(self.stored.shape[-1])

    @property
    def nbytes(self) -> int:
        """Of the whole tensor, in its type on the GPU."""
        return self.rows * self.row_bytes

    @property
    def held(self) -> int:
        """Of what is kept on the GPU."""
        return self.nbytes if self.slots is None else self.nbytes // self.stored.shape[0] * self.slots

    def report(self) -> LoadedWeight:
        """For the load report."""
        note = ""
        if self.slots is not None:
            note = f"experts in the host's memory, the GPU's has {self.slots} places for them and those like them"
        elif self.type is not self.stored.type and len(self.stored.shape) > 1:
            growth = self.type.bits_per_weight / self.stored.type.bits_per_weight
            note = f"{self.stored.type.name} has no kernel: kept as F32, {growth:.1f} times its size"
        return LoadedWeight(self.name, self.stored.type, f"{self.type.name}, on the GPU", self.held, note)


def plan_tensors(plan: Plan, provider: WeightProvider) -> dict[str, Tensor]:
    """How to keep every weight of the plan. UnsupportedError names a tensor that cannot be one."""
    tensors = {}
    unaligned = {op.weight for op in plan.ops if isinstance(op, HeadLinear) and (op.inward + op.rest) % 32}
    for name, weight in plan.weights.items():
        stored = provider.weights[name]
        if stored.type in WHOLE_NUMBERS:
            raise UnsupportedError(f"tensor {name}: integers ({stored.type.name}) cannot be weights")
        own = weight.role not in (Role.VECTOR, Role.ADAPTER) and stored.type in catalogue.WEIGHTS
        own = own and not (name in unaligned and catalogue.reads_codes(stored.type))  # blocks of inputs go across heads
        tensors[name] = Tensor(name, stored, stored.type if own else BlockType.F32)
    return tensors


class Uploader:
    """Copies tensors through two pieces of pinned memory."""

    def __init__(self, device: Device, provider: WeightProvider, progress: Callable[[int], None]) -> None:
        self._device = device
        self._provider = provider
        self._progress = progress
        self._pieces: list[tuple[Bytes, Event | None]] = [(device.pinned(PIECE), None) for _ in range(2)]

    def load(self, tensors: Mapping[str, Tensor], left: Collection[str]) -> dict[str, int]:
        """Addresses of all tensors but those that are left to others. Memory is taken tensor by tensor."""
        addresses = {}
        for tensor in tensors.values():
            if tensor.name in left:
                continue
            address = addresses[tensor.name] = self._device.allocate(tensor.nbytes + SLACK)
            for start, rows in self._rows(tensor):
                self._send(address + start, rows)
        self._device.synchronize()
        return addresses

    def _rows(self, tensor: Tensor) -> Iterator[tuple[int, Bytes]]:
        """Rows in the type of the GPU, from which byte on."""
        mapped = self._provider.map(tensor.name) if tensor.type is tensor.stored.type else None
        step = max(1, PIECE // max(tensor.row_bytes, tensor.stored.type.row_bytes(tensor.stored.shape[-1])))
        for first in range(0, tensor.rows, step):
            count = min(step, tensor.rows - first)
            raw = (
                mapped[first : first + count] if mapped is not None else self._provider.read(tensor.name, first, count)
            )
            self._progress(raw.nbytes)
            if tensor.type is not tensor.stored.type:
                raw = np.ascontiguousarray(dequantize(raw, tensor.stored.type), np.float32).view(np.uint8)
            yield first * tensor.row_bytes, raw.reshape(-1)

    def _send(self, target: int, data: Bytes) -> None:
        for start in range(0, len(data), PIECE):  # a single row may be longer than a piece
            part = data[start : start + PIECE]
            piece, busy = self._pieces.pop(0)
            if busy is not None:
                self._device.synchronize(busy)
            piece[: len(part)] = part
            self._device.upload(target + start, piece[: len(part)], Queue.COMPUTE)
            self._pieces.append((piece, self._device.record()))


def stored_bytes(stored: StoredWeight) -> int:
    """Of a tensor in the file."""
    return int(np.prod(stored.shape[:-1], dtype=np.int64)) * stored.type.row_bytes(stored.shape[-1])
