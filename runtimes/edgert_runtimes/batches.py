"""Whether a batch stays within a session's limits, for backends whose kernels do not look themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from edgert_models.errors import RequestError

from edgert_runtimes.base import Batch, Int32, Limits


def check_batch(batch: Batch, limits: Limits, vocabulary: int) -> None:
    """RequestError names the array, and the number in it that is out of range."""
    rows = len(batch.tokens)
    if rows > limits.rows:
        raise RequestError(f"the batch has {rows} rows, the session takes {limits.rows}", parameter="tokens")
    for name in ("tokens", "positions", "sequence", "slots"):
        shape = getattr(batch, name).shape
        if shape != (rows,):
            raise RequestError(f"{name} has shape {shape}, tokens has {rows} rows", parameter=name)
    tables = batch.tables.shape
    if len(tables) != 2 or tables[0] > limits.sequences:
        raise RequestError(f"tables has shape {tables}; at most {limits.sequences} sequences fit")
    if batch.pick.ndim != 1 or len(batch.pick) > limits.rows:
        reason = f"pick has shape {batch.pick.shape}; at most {limits.rows} rows fit"
        raise RequestError(reason, parameter="pick")
    reach = min(limits.context, tables[1] * limits.block_size)
    sizes = {
        "tokens": vocabulary,
        "positions": reach,
        "sequence": tables[0],
        "slots": limits.blocks * limits.block_size,
        "pick": rows,
    }
    for name, size in sizes.items():
        _check_range(name, getattr(batch, name), size)
    for index, blocks in used_blocks(batch, limits.block_size):
        wrong = (blocks < 0) | (blocks >= limits.blocks)
        if wrong.any():
            raise RequestError(f"tables[{index}] is out of range: {batch.tables[index]}", parameter="tables")


def used_blocks(batch: Batch, block_size: int) -> Iterator[tuple[int, Int32]]:
    """Of each sequence that has rows, its index and the blocks that they reach."""
    reach = np.full(len(batch.tables), -1)
    np.maximum.at(reach, batch.sequence, batch.positions // block_size)
    for index in np.flatnonzero(reach >= 0):
        yield int(index), batch.tables[index, : reach[index] + 1]


def _check_range(name: str, values: Int32, size: int) -> None:
    """Numbers from 0 to below `size`."""
    if len(values) and not (values.min() >= 0 and values.max() < size):
        index = int(np.flatnonzero((values < 0) | (values >= size))[0])
        raise RequestError(f"{name}[{index}] is out of range: {values[index]}", parameter=name)
