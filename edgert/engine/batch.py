"""From parts of requests to the arrays of a Batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from edgert_runtimes.base import Batch

from edgert.engine.request import Kind
from edgert.engine.scheduler import Part


def make_batch(parts: Sequence[Part], block_size: int) -> Batch:
    """Rows of all parts one after the other. Picked: of an evaluation every row, of a prompt that is complete with this
    step the last row. Part i is sequence i; tables are padded with 0.
    """
    counts = [part.count for part in parts]
    ends = [part.request.computed + part.count for part in parts]
    positions = [np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]
    tables = np.zeros((len(parts), max(-(-end // block_size) for end in ends)), dtype=np.int32)
    slots, pick, first = [], [], 0
    for index, (part, end) in enumerate(zip(parts, ends, strict=True)):
        blocks = part.request.table.blocks[: -(-end // block_size)]
        tables[index, : len(blocks)] = blocks
        slots.append(tables[index, positions[index] // block_size] * block_size + positions[index] % block_size)
        if part.request.kind is not Kind.GENERATE:
            pick.append(np.arange(first, first + part.count))
        elif end == len(part.request.tokens):
            pick.append(np.array([first + part.count - 1]))
        first += part.count
    tokens = [part.request.tokens[end - part.count : end] for part, end in zip(parts, ends, strict=True)]
    return Batch(
        tokens=_int32(tokens),
        positions=_int32(positions),
        sequence=np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        slots=_int32(slots),
        tables=tables,
        lengths=np.array(ends, dtype=np.int32),
        pick=_int32(pick),
    )


def _int32(pieces: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    return np.concatenate([*pieces, np.empty(0, dtype=np.int32)]).astype(np.int32)
