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
    # Lists, each made an array once: most parts are a single row, and NumPy takes a microsecond for whatever it does.
    tokens: list[int] = []
    positions: list[int] = []
    sequence: list[int] = []
    slots: list[int] = []
    lengths: list[int] = []
    pick: list[int] = []
    for index, part in enumerate(parts):
        request, blocks = part.request, part.request.table.blocks
        start, end = request.computed, request.computed + part.count
        tokens += request.tokens[start:end]
        positions += range(start, end)
        sequence += [index] * part.count
        slots += [blocks[p // block_size] * block_size + p % block_size for p in range(start, end)]
        lengths.append(end)
        if request.kind is not Kind.GENERATE:
            pick += range(len(tokens) - part.count, len(tokens))
        elif end == len(request.tokens):
            pick.append(len(tokens) - 1)
    tables = np.zeros((len(parts), -(-max(lengths) // block_size)), dtype=np.int32)
    for index, (part, length) in enumerate(zip(parts, lengths, strict=True)):
        blocks = part.request.table.blocks[: -(-length // block_size)]
        tables[index, : len(blocks)] = blocks
    return Batch(
        tokens=np.array(tokens, dtype=np.int32),
        positions=np.array(positions, dtype=np.int32),
        sequence=np.array(sequence, dtype=np.int32),
        slots=np.array(slots, dtype=np.int32),
        tables=tables,
        lengths=np.array(lengths, dtype=np.int32),
        pick=np.array(pick, dtype=np.int32),
    )
