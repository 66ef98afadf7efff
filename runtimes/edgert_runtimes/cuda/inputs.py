"""A step's batch on its way to the GPU: checked, padded, and copied as one piece from pinned memory.

Every array has a place of its own for as many numbers as `Limits` allow, so that launches can be noted once. Rows that
pad a batch are copies of its first, whose keys and values go to a block that no sequence has: they choose the same
experts, and cost nothing but their share of the arithmetic.
"""

from __future__ import annotations

import numpy as np
from edgert_models.errors import RequestError

from edgert_runtimes.base import Batch, Int32, Limits
from edgert_runtimes.cuda.device import Arrays, Device

ROWWISE = ("tokens", "positions", "sequence", "slots")
NO_TILES: Int32 = np.empty((0, 2), np.int32)


class Inputs:
    """The arrays of `Batch` by name: `addresses` on the GPU; tables [sequences, Limits.table_width]. `tiles` [tiles, 2] are
    those of `attend_tile`.
    """

    def __init__(self, device: Device, limits: Limits, vocabulary: int) -> None:
        self._device = device
        self._limits = limits
        self._vocabulary = vocabulary
        counts = dict.fromkeys((*ROWWISE, "pick"), limits.rows)
        counts |= {
            "tables": limits.sequences * limits.table_width,
            "lengths": limits.sequences,
            "tiles": 2 * limits.rows,
        }
        places = Arrays([(name, 4 * count) for name, count in counts.items()])
        self._bytes = device.pinned(places.size)
        self._arrays: dict[str, Int32] = {
            name: self._bytes[start : start + 4 * counts[name]].view(np.int32) for name, start in places.offsets.items()
        }
        self._tables = self._arrays["tables"].reshape(limits.sequences, limits.table_width)
        self._memory = device.allocate(places.size)
        self.addresses = {name: self._memory + start for name, start in places.offsets.items()}

    @staticmethod
    def bytes(limits: Limits) -> int:
        """What it takes on the GPU, roughly."""
        return 4 * (7 * limits.rows + limits.sequences * (limits.table_width + 1)) + 8 * 256

    def set(self, batch: Batch, rows: int, tiles: Int32 = NO_TILES) -> None:
        """Copy a checked batch to the GPU, with so many rows (and, where it is padded, as many picks)."""
        count, picked = len(batch.tokens), len(batch.pick)
        arrays = self._arrays
        for name in ROWWISE:
            array = getattr(batch, name)
            arrays[name][:count] = array
            arrays[name][count:rows] = array[0]
        arrays["slots"][count:rows] = self._limits.blocks * self._limits.block_size
        arrays["pick"][:picked] = batch.pick
        arrays["pick"][picked:rows] = 0
        width = min(batch.tables.shape[1], self._limits.table_width)
        self._tables[: len(batch.tables), :width] = batch.tables[:, :width]
        arrays["tiles"][: tiles.size] = tiles.reshape(-1)
        arrays["lengths"][: len(batch.lengths)] = batch.lengths
        self._device.upload(self._memory, self._bytes)

    def check(self, batch: Batch) -> None:
        """RequestError for what is not within the model and the cache, so that no kernel reads where it must not."""
        limits, count, shape = self._limits, len(batch.tokens), batch.tables.shape
        if count > limits.rows:
            raise RequestError(f"the batch has {count} rows, the session takes {limits.rows}", parameter="tokens")
        for name in ROWWISE:
            array = getattr(batch, name)
            if array.shape != (count,):
                raise RequestError(f"{name} has shape {array.shape}, tokens has {count} rows", parameter=name)
        if len(shape) != 2 or shape[0] > limits.sequences:
            raise RequestError(f"tables has shape {shape}; at most {limits.sequences} sequences fit")
        if batch.lengths.shape != shape[:1]:
            raise RequestError(f"lengths has shape {batch.lengths.shape}, tables has {shape[0]} sequences")
        if batch.pick.ndim != 1 or len(batch.pick) > limits.rows:
            raise RequestError(f"pick has shape {batch.pick.shape}; at most {limits.rows} rows fit", parameter="pick")
        reach = min(limits.context, min(shape[1], limits.table_width) * limits.block_size)
        for name, end in (
            ("tokens", self._vocabulary),
            ("positions", reach),
            ("sequence", shape[0]),
            ("slots", limits.blocks * limits.block_size),
            ("pick", count),
        ):
            array = getattr(batch, name)
            self._within(name, array, (array < 0) | (array >= end))
        last = np.zeros(shape[0], np.int32)
        np.maximum.at(last, batch.sequence, batch.positions + 1)
        used = np.arange(shape[1]) * limits.block_size < last[:, None]
        wrong = used & ((batch.tables < 0) | (batch.tables >= limits.blocks))
        self._within("tables", batch.tables, wrong.any(axis=1))

    def _within(self, name: str, array: Int32, wrong: np.ndarray) -> None:
        if wrong.any():
            index = int(wrong.argmax())
            raise RequestError(f"{name}[{index}] is out of range: {array[index]}", parameter=name)
