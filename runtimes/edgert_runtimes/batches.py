"""Whether a batch stays within a session's limits, for backends whose kernels do not look themselves."""

from __future__ import annotations

from edgert_models.errors import RequestError

from edgert_runtimes.base import Batch, Limits


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
        _check_range(name, getattr(batch, name).tolist(), size)
    last: dict[int, int] = {}  # position of each sequence that has rows
    for index, position in zip(batch.sequence.tolist(), batch.positions.tolist(), strict=True):
        last[index] = max(position, last.get(index, 0))
    for index, position in last.items():
        blocks = batch.tables[index, : position // limits.block_size + 1].tolist()
        if not _within(blocks, limits.blocks):
            raise RequestError(f"tables[{index}] is out of range: {blocks}", parameter="tables")


def _check_range(name: str, values: list[int], size: int) -> None:
    if not _within(values, size):
        index = next(index for index, value in enumerate(values) if not 0 <= value < size)
        raise RequestError(f"{name}[{index}] is out of range: {values[index]}", parameter=name)


def _within(values: list[int], size: int) -> bool:
    """Whether all are from 0 to below `size`. A list: most batches are a few rows, which NumPy takes longer for."""
    return not values or (min(values) >= 0 and max(values) < size)
