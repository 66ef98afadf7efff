"""The experts in the host's memory: pinned where there is room, so that they are copied at the bus's full speed and no
page of them is ever waited for; else mapped from the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from edgert_quant.blocks import dequantize
from numpy.typing import NDArray

from edgert_runtimes.base import StoredWeight, WeightProvider
from edgert_runtimes.cuda.device import Bytes, Device
from edgert_runtimes.cuda.weights import PIECE, Tensor
from edgert_runtimes.memory import available_memory

PINNED_SHARE = 0.7
"""Of the memory that is available, the most that is pinned: what is pinned cannot be swapped."""


class HostWeights:
    """A provider of the experts' tensors (see WeightProvider), which lie where `map` says as long as the session lives.

    `of_expert` is an expert's part of a tensor, in its type on the GPU, `pinned` whether they are pinned.
    """

    def __init__(
        self,
        device: Device,
        provider: WeightProvider,
        tensors: Mapping[str, Tensor],
        progress: Callable[[int], None],
    ) -> None:
        self.weights: Mapping[str, StoredWeight] = {name: tensor.stored for name, tensor in tensors.items()}
        self._provider = provider
        needed, available = sum(tensor.nbytes for tensor in tensors.values()), available_memory()
        mapped = all(provider.map(name) is not None for name in tensors)
        self.pinned = available is None or not mapped or needed < PINNED_SHARE * available
        self._rows: dict[str, Bytes] = {}
        self._experts: dict[str, Bytes] = {}
        for tensor in tensors.values():
            rows = self._copied(device, tensor, progress) if self.pinned else provider.map(tensor.name)
            assert rows is not None
            if not self.pinned:
                progress(rows.nbytes)
            self._rows[tensor.name] = rows
            data: NDArray[np.uint8] = rows
            if tensor.type is not tensor.stored.type:  # a bias that is not kept in F32: small
                data = np.ascontiguousarray(dequantize(rows, tensor.stored.type), np.float32).view(np.uint8)
            self._experts[tensor.name] = data.reshape(tensor.stored.shape[0], -1)

    def _copied(self, device: Device, tensor: Tensor, progress: Callable[[int], None]) -> Bytes:
        row_bytes = tensor.stored.type.row_bytes(tensor.stored.shape[-1])
        target = device.pinned(tensor.rows * row_bytes).reshape(tensor.rows, row_bytes)
        step = max(1, PIECE // row_bytes)
        for first in range(0, tensor.rows, step):
            piece = self._provider.read(tensor.name, first, min(step, tensor.rows - first))
            target[first : first + len(piece)] = piece
            progress(piece.nbytes)
        return target

    def of_expert(self, name: str, expert: int) -> Bytes:
        """Bytes of one expert's part of a tensor."""
        part: Bytes = self._experts[name][expert]
        return part

    def read(self, name: str, start: int = 0, count: int | None = None) -> NDArray[np.uint8]:
        """See WeightProvider."""
        rows: Bytes = self._rows[name][start : None if count is None else start + count].copy()
        return rows

    def map(self, name: str) -> NDArray[np.uint8] | None:
        """See WeightProvider."""
        return self._rows[name]

    def check(self) -> None:
        """See WeightProvider."""
        if not self.pinned:
            self._provider.check()
