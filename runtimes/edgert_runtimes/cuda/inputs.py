"""A step's batch on its way to the GPU: padded, and copied as one piece from pinned memory.

Every array has a place of its own for as many numbers as `Limits` allow, so that launches can be noted once. Rows that
pad a batch are copies of its first, whose keys and values go to a block that no sequence has: they choose the same
experts, and cost nothing but their share of the arithmetic.
"""

from __future__ import annotations

import numpy as np
from edgert_models.graph import Cache

from edgert_runtimes.base import NO_ADAPTERS, Batch, Int32, Limits
from edgert_runtimes.cuda.device import Arrays, Bytes, Device, Event

ROWWISE = ("tokens", "positions", "sequence")
NO_TILES: Int32 = np.empty((0, 2), np.int32)
NO_RUNS: Int32 = np.empty((0, 4), np.int32)


def slots_of(cache: Cache, limits: Limits) -> str:
    """The array that says where a layer's keys and values go."""
    return "window_slots" if limits.has_own_blocks(cache) else "slots"


def tables_of(cache: Cache, limits: Limits) -> str:
    """The array that says where they are."""
    return "window_tables" if limits.has_own_blocks(cache) else "tables"


def _sizes(limits: Limits) -> dict[str, int]:
    """Numbers in each array."""
    return {
        **dict.fromkeys((*ROWWISE, "slots", "window_slots", "pick", "adapters"), limits.rows),
        **dict.fromkeys(("tables", "window_tables"), limits.sequences * limits.table_width),
        "lengths": limits.sequences,
        "tiles": 2 * limits.rows,
        "runs": 4 * limits.rows,
        "count": 1,
    }


def _arrays(limits: Limits) -> Arrays:
    return Arrays([(name, 4 * count) for name, count in _sizes(limits).items()])


class Inputs:
    """The arrays of `Batch` by name: `addresses` on the GPU; tables [sequences, Limits.table_width]. `tiles` [tiles,
    2] are those of `attend_tile`, `runs` [runs, 4] those of `batches.runs_of`, `adapters` [rows] those of
    `batches.adapters_of`; `count` [1] is the number of rows that do not pad.
    """

    def __init__(self, device: Device, limits: Limits) -> None:
        self._device = device
        self._limits = limits
        places = _arrays(limits)
        self._offsets, self._counts = places.offsets, _sizes(limits)
        # Two, so that one can be filled while the other is still being copied.
        self._staged: list[tuple[Bytes, Event | None]] = [(device.pinned(places.size), None) for _ in range(2)]
        self._memory = device.allocate(places.size)
        self.addresses = {name: self._memory + start for name, start in places.offsets.items()}

    @staticmethod
    def bytes(limits: Limits) -> int:
        """What it takes on the GPU."""
        return _arrays(limits).size

    def set(
        self,
        batch: Batch,
        rows: int,
        tiles: Int32 = NO_TILES,
        runs: Int32 = NO_RUNS,
        adapters: Int32 = NO_ADAPTERS,
    ) -> None:
        """Copy a checked batch to the GPU, with so many rows (and, where it is padded, as many picks and runs)."""
        count, picked = len(batch.tokens), len(batch.pick)
        staged, busy = self._staged.pop(0)
        if busy is not None:
            self._device.synchronize(busy)
        arrays: dict[str, Int32] = {
            name: staged[start : start + 4 * self._counts[name]].view(np.int32) for name, start in self._offsets.items()
        }
        for name in ROWWISE:
            array = getattr(batch, name)
            arrays[name][:count] = array
            arrays[name][count:rows] = array[0]
        arrays["pick"][:picked] = batch.pick
        arrays["pick"][picked:rows] = 0
        pools = [("slots", "tables", self._limits.blocks)]
        if batch.window_tables.size:
            pools.append(("window_slots", "window_tables", self._limits.window_blocks))
        width = min(batch.tables.shape[1], self._limits.table_width)
        for slots, tables, blocks in pools:
            arrays[slots][:count] = getattr(batch, slots)
            arrays[slots][count:rows] = blocks * self._limits.block_size
            table = arrays[tables].reshape(self._limits.sequences, self._limits.table_width)
            table[: len(batch.tables), :width] = getattr(batch, tables)[:, :width]
        arrays["tiles"][: tiles.size] = tiles.reshape(-1)
        arrays["runs"][: runs.size] = runs.reshape(-1)
        if len(runs) and rows > count:
            spare = np.arange(count, rows)
            padding = np.stack([spare, 0 * spare + 1, 0 * spare + runs[0, 2], 0 * spare + self._limits.states], axis=1)
            arrays["runs"][4 * count : 4 * rows] = padding.reshape(-1)
        arrays["lengths"][: len(batch.lengths)] = batch.lengths
        arrays["adapters"][: len(adapters)] = adapters
        arrays["adapters"][len(adapters) : rows] = -1
        arrays["count"][0] = count
        self._device.upload(self._memory, staged)
        self._staged.append((staged, self._device.record()))
