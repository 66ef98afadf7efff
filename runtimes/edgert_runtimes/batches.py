"""Whether a batch stays within a session's limits, for backends whose kernels do not look themselves."""

from __future__ import annotations

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
    reach = np.full(tables[0], -1)
    np.maximum.at(reach, batch.sequence, batch.positions // limits.block_size)
    wrong = (batch.tables.view(np.uint32) >= limits.blocks) & (np.arange(tables[1]) <= reach[:, None])
    if wrong.any():
        index = int(np.argwhere(wrong)[0, 0])
        raise RequestError(f"tables[{index}] is out of range: {batch.tables[index]}", parameter="tables")


def _check_range(name: str, values: Int32, size: int) -> None:
    """Numbers from 0 to below `size`; seen without their sign, negative ones are large."""
    unsigned = values.view(np.uint32)
    if len(values) and unsigned.max() >= size:
        index = int(np.flatnonzero(unsigned >= size)[0])
        raise RequestError(f"{name}[{index}] is out of range: {values[index]}", parameter=name)
