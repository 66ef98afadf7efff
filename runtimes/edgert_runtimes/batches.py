"""Whether a batch stays within a session's limits, for backends whose kernels do not look themselves; the runs of its
rows that recurrent states go through, the adapters that they go through, and what they attend to.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from edgert_models.errors import RequestError
from edgert_models.graph import Plan
from edgert_models.ops import LowRank

from edgert_runtimes.base import Batch, Int32, Limits


def check_batch(batch: Batch, limits: Limits, plan: Plan) -> None:
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
        "tokens": plan.spec.vocabulary,
        "positions": reach,
        "sequence": tables[0],
        "slots": limits.blocks * limits.block_size,
        "pick": rows,
    }
    for name, size in sizes.items():
        _check_range(name, getattr(batch, name).tolist(), size)
    for index, (_, last) in _spans(batch).items():
        _check_table("tables", index, batch.tables[index, : last // limits.block_size + 1].tolist(), limits.blocks)
    check_windows(batch, limits, plan)


def check_windows(batch: Batch, limits: Limits, plan: Plan) -> None:
    """RequestError as `check_batch` has it, of the arrays for layers with a window, where these have blocks of their
    own; the others are right.
    """
    if not limits.window_blocks or not plan.reach:
        return
    for name, like in (("window_slots", "slots"), ("window_tables", "tables")):
        shape, wanted = getattr(batch, name).shape, getattr(batch, like).shape
        if shape != wanted:
            raise RequestError(f"{name} has shape {shape}, {like} has {wanted}", parameter=name)
    _check_range("window_slots", batch.window_slots.tolist(), limits.window_blocks * limits.block_size)
    for index, (first, last) in _spans(batch).items():
        begin = first_seen_at(first, plan.reach) // limits.block_size
        blocks = batch.window_tables[index, begin : last // limits.block_size + 1].tolist()
        _check_table("window_tables", index, blocks, limits.window_blocks)


def with_rings(batch: Batch, rings: Int32, block_size: int) -> Batch:
    """The batch, where sequence s has the blocks rings[s] [sequences, any] of layers with a window, which it goes
    through again and again. They have to be enough: see `blocks_seen`.
    """
    columns = np.arange(batch.tables.shape[1]) % rings.shape[1]
    tables = np.asarray(rings[:, columns], np.int32)
    blocks = tables[batch.sequence, batch.positions // block_size]
    return replace(batch, window_tables=tables, window_slots=blocks * block_size + batch.positions % block_size)


def blocks_seen(reach: int, rows: int, block_size: int) -> int:
    """Blocks at most of what so many rows of a sequence, one after another, see through a window."""
    return -(-(abs(reach) + rows - 2) // block_size) + 1


def first_seen(positions: Int32, reach: int) -> Int32:
    """The first position that rows at these attend to; see `Attend.reach`."""
    if reach < 0:
        return positions - positions % -reach
    return np.maximum(0, positions - reach + 1) if reach else np.zeros_like(positions)


def first_seen_at(position: int, reach: int) -> int:
    """The same of one position."""
    return position - position % -reach if reach < 0 else max(0, position - reach + 1) if reach else 0


def asks_for(batch: Batch, begun: Batch) -> bool:
    """Whether a batch is the one that was begun ahead, but for its tokens."""
    names = ("positions", "sequence", "slots", "tables", "pick", "state_from", "state_to", "adapters")
    return all(np.array_equal(getattr(batch, n), getattr(begun, n)) for n in (*names, "window_slots", "window_tables"))


def runs_of(batch: Batch, limits: Limits) -> Int32:
    """The rows of each sequence of a batch: int32 [sequences, 4] of (first row, rows, slot read, slot written). The
    slot read is -1 where states begin as zeros. RequestError where rows are not in runs, or slots not as they must be.
    """
    count, rows = len(batch.tables), len(batch.tokens)
    for name in ("state_from", "state_to"):
        array = getattr(batch, name)
        if array.shape != (count,):
            reason = f"{name} has shape {array.shape}, the batch has {count} sequences, and the model recurrent states"
            raise RequestError(reason, parameter=name)
        _check_range(name, array.tolist(), limits.states)
    sequence, positions = batch.sequence, batch.positions
    same = sequence[1:] == sequence[:-1]
    starts = np.concatenate([[0], np.flatnonzero(~same) + 1]) if rows else np.empty(0, np.int64)
    if len(np.unique(sequence)) != len(starts) or not (np.diff(positions)[same] == 1).all():
        raise RequestError("rows of one sequence must follow one another where a model has recurrent states")
    runs = np.zeros((count, 4), np.int32)
    owners = sequence[starts]
    runs[owners, 0] = starts
    runs[owners, 1] = np.diff([*starts, rows])
    runs[owners, 2] = np.where(positions[starts] == 0, -1, batch.state_from[owners])
    runs[owners, 3] = batch.state_to[owners]
    moves = runs[owners, 2:].tolist()
    touched = [*(target for _, target in moves), *{source for source, target in moves if source not in (-1, target)}]
    if len(set(touched)) < len(touched):
        raise RequestError("a slot of states is written for two sequences, or read for another", parameter="state_to")
    return runs


def adapter_count(plan: Plan) -> int:
    """How many adapters a plan serves."""
    return max((plan.weights[op.a].shape[0] for op in plan.ops if isinstance(op, LowRank)), default=0)


def adapters_of(batch: Batch, count: int) -> Int32:
    """The adapter of each row, -1 for none. RequestError for one that is not among `count`."""
    if not len(batch.adapters):
        return np.full(len(batch.tokens), -1, np.int32)
    if batch.adapters.shape != batch.lengths.shape or not _within((batch.adapters + 1).tolist(), count + 1):
        raise RequestError(f"adapters are {batch.adapters.tolist()}; there are {count}", parameter="adapters")
    return np.asarray(batch.adapters[batch.sequence], np.int32)


def _spans(batch: Batch) -> dict[int, tuple[int, int]]:
    """The first and the last position of the rows of each sequence that has any."""
    found: dict[int, tuple[int, int]] = {}
    for index, position in zip(batch.sequence.tolist(), batch.positions.tolist(), strict=True):
        first, last = found.get(index, (position, position))
        found[index] = min(first, position), max(last, position)
    return found


def _check_table(name: str, index: int, blocks: list[int], size: int) -> None:
    if not _within(blocks, size):
        raise RequestError(f"{name}[{index}] is out of range: {blocks}", parameter=name)


def _check_range(name: str, values: list[int], size: int) -> None:
    if not _within(values, size):
        index = next(index for index, value in enumerate(values) if not 0 <= value < size)
        raise RequestError(f"{name}[{index}] is out of range: {values[index]}", parameter=name)


def _within(values: list[int], size: int) -> bool:
    """Whether all are from 0 to below `size`. A list: most batches are a few rows, which NumPy takes longer for."""
    return not values or (min(values) >= 0 and max(values) < size)
