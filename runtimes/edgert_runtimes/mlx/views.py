"""What the rows of a batch attend to, as MLX's attention takes it: found on the host once a step, for all layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import mlx.core as mx
import numpy as np

from edgert_runtimes.base import Batch, Int32
from edgert_runtimes.batches import first_seen


@dataclass(frozen=True, slots=True)
class View:
    """`rows` of a batch, equally many of each of some sequences; the slots where their keys and values are (a slice, or
    [sequences, n]); and a mask: bool [sequences, 1, rows of one, n], "causal" where the last row is at the last slot,
    or None where every row attends to all.
    """

    rows: slice
    sequences: int
    where: slice | mx.array
    mask: mx.array | Literal["causal"] | None


def make_views(batch: Batch, tables: Int32, block_size: int, reach: int) -> list[View]:
    """The views of a batch whose rows of one sequence follow one another, in their order; `tables` are those of its
    sequences. See `ops.Attend.reach`.
    """
    counts = [len(list(rows)) for _, rows in groupby(batch.sequence.tolist())]
    views, start = [], 0
    for single, group in groupby(counts, lambda count: count == 1):
        several = list(group)
        for count in [len(several)] if single else several:  # rows that are decoding go together
            make = _decoding if single and count > 1 else _one_sequence
            views.append(make(batch, tables, slice(start, start + count), block_size, reach))
            start += count
    return views


def _one_sequence(batch: Batch, tables: Int32, rows: slice, block_size: int, reach: int) -> View:
    positions = batch.positions[rows]
    first = int(first_seen(positions[0], reach))
    end = int(positions[-1]) + 1
    table = tables[batch.sequence[rows.start]]
    blocks = table[first // block_size : (end - 1) // block_size + 1].tolist()
    where: slice | mx.array
    if blocks == list(range(blocks[0], blocks[0] + len(blocks))):
        start = blocks[0] * block_size + first % block_size
        where = slice(start, start + end - first)
    else:
        seen = np.arange(first, end)
        where = mx.array((table[seen // block_size] * block_size + seen % block_size)[None])
    count = len(positions)
    if count == 1:
        return View(rows, 1, where, None)
    if not reach and end - int(positions[0]) == count:
        return View(rows, 1, where, "causal")
    seen = np.arange(first, end)
    mask = seen <= positions[:, None]
    if reach:
        mask &= seen >= first_seen(positions, reach)[:, None]
    return View(rows, 1, where, mx.array(mask[None, None]))


def _decoding(batch: Batch, tables: Int32, rows: slice, block_size: int, reach: int) -> View:
    """Sequences with one row each. Those that have fewer positions than others see their last one again, masked."""
    positions, tables = batch.positions[rows, None], tables[batch.sequence[rows]]
    first = first_seen(positions, reach)
    lengths = positions + 1 - first
    n = np.arange(lengths.max())
    seen = np.minimum(first + n, positions)
    slots = np.take_along_axis(tables, seen // block_size, axis=1) * block_size + seen % block_size
    mask = None if (lengths == lengths[0]).all() else mx.array((n < lengths)[:, None, None])
    return View(rows, len(positions), mx.array(slots), mask)


def grouped(batch: Batch) -> tuple[Batch, Int32 | None]:
    """The batch with the rows of each sequence one after another, and where its rows were; None where nothing moves."""
    sequence = batch.sequence.tolist()
    if sequence == sorted(sequence):
        return batch, None
    order = np.argsort(batch.sequence, kind="stable")
    places = np.argsort(order).astype(np.int32)
    rows = {name: getattr(batch, name)[order] for name in ("tokens", "positions", "sequence", "slots")}
    if batch.window_slots.size:
        rows["window_slots"] = batch.window_slots[order]
    return replace(batch, **rows, pick=places[batch.pick]), places
