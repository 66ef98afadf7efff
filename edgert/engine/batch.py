"""From parts of requests to the arrays of a Batch, and to what comes after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from edgert_runtimes.base import Batch, Draw
from numpy.typing import NDArray

from edgert.engine.request import Kind
from edgert.engine.scheduler import Part


def make_batch(parts: Sequence[Part], block_size: int) -> Batch:
    """Rows of all parts one after the other. Picked: of an evaluation every row, of a prompt that is complete with this
    step the last row, and those of guesses. Part i is sequence i; tables are padded with 0.
    """
    # Lists, each made an array once: most parts are a single row, and NumPy takes a microsecond for whatever it does.
    tokens: list[int] = []
    positions: list[int] = []
    sequence: list[int] = []
    slots: list[int] = []
    lengths: list[int] = []
    rows: list[range] = []
    pick: list[int] = []
    for index, part in enumerate(parts):
        request, blocks = part.request, part.request.table.blocks
        start, end = request.computed, request.computed + part.count
        tokens += request.tokens[start:end]
        tokens += part.guessed
        rows.append(range(start, end))
        positions += rows[-1]
        sequence += [index] * part.count
        slots += _slots(blocks, rows[-1], block_size)
        lengths.append(end)
        if request.kind is not Kind.GENERATE:
            pick += range(len(tokens) - part.count, len(tokens))
        elif end >= len(request.tokens):
            pick += range(len(tokens) - 1 - len(part.guessed), len(tokens))
    return Batch(
        tokens=np.array(tokens, dtype=np.int32),
        positions=np.array(positions, dtype=np.int32),
        sequence=np.array(sequence, dtype=np.int32),
        slots=np.array(slots, dtype=np.int32),
        tables=_tables([part.request.table.blocks for part in parts], lengths, block_size),
        lengths=np.array(lengths, dtype=np.int32),
        pick=np.array(pick, dtype=np.int32),
        **_adapters(parts),
        **_states([(part.request.states.now, part.request.states.next) for part in parts]),
        **_windows(parts, rows, block_size),
    )


def draws_of(parts: Sequence[Part]) -> list[Draw]:
    """How the next token will be drawn of those parts whose requests are decoding and go on after that, as far as one
    can tell.
    """
    found = []
    for part in parts:
        request = part.request
        if request.sampler is None or request.remaining > 1 or len(request.history) + 1 >= request.limit:
            continue
        if not request.slides and not part.guessed:  # the next step may be another
            draw = request.sampler.draw(len(request.history))
            found += [] if draw is None else [draw]
    return found


def following_batch(batch: Batch, parts: Sequence[Part], block_size: int) -> Batch | None:
    """The batch after one in which every part is a single row, if all go on; None where one needs another block first.
    Its tokens are not known yet. Where a model has recurrent states, all have slots for it.
    """
    tables = [part.request.table.blocks for part in parts]
    lengths = (batch.lengths + 1).tolist()
    if any(len(blocks) * block_size < length for blocks, length in zip(tables, lengths, strict=True)):
        return None
    rows = [range(length - 1, length) for length in lengths]
    last = [slot for blocks, row in zip(tables, rows, strict=True) for slot in _slots(blocks, row, block_size)]
    return replace(
        batch,
        positions=batch.positions + 1,
        slots=np.array(last, dtype=np.int32),
        tables=_tables(tables, lengths, block_size),
        lengths=batch.lengths + 1,
        **_states([(part.request.states.next, part.request.states.ahead) for part in parts]),
        **_windows(parts, rows, block_size),
    )


def _adapters(parts: Sequence[Part]) -> dict[str, NDArray[np.int32]]:
    """The adapter of each part, where any has one."""
    chosen = [part.request.adapter for part in parts]
    return {} if max(chosen) < 0 else {"adapters": np.array(chosen, dtype=np.int32)}


def _states(slots: Sequence[tuple[int | None, int | None]]) -> dict[str, NDArray[np.int32]]:
    """The slots of states to read and to write, for models that have any. Who begins reads none."""
    if any(after is None for _, after in slots):
        return {}
    moves = np.array([(after if before is None else before, after) for before, after in slots], dtype=np.int32)
    return {"state_from": moves[:, 0], "state_to": moves[:, 1]}


def _windows(parts: Sequence[Part], rows: Sequence[range], block_size: int) -> dict[str, NDArray[np.int32]]:
    """Where each part's rows, of these positions, go in layers with a window, if these have blocks of their own."""
    windows = [part.request.window for part in parts]
    if not windows[0].blocks:
        return {}
    slots: list[int] = []
    for window, positions in zip(windows, rows, strict=True):
        slots += _slots(window.blocks, positions, block_size, window.begin)
    tables = np.zeros((len(parts), -(-max(positions.stop for positions in rows) // block_size)), dtype=np.int32)
    for row, window in zip(tables, windows, strict=True):
        row[window.begin : window.end] = window.blocks[: len(row) - window.begin]
    return {"window_slots": np.array(slots, dtype=np.int32), "window_tables": tables}


def _slots(blocks: Sequence[int], positions: range, block_size: int, begin: int = 0) -> list[int]:
    """Where rows at these positions of a sequence go, whose blocks are those from number `begin` on."""
    return [blocks[p // block_size - begin] * block_size + p % block_size for p in positions]


def _tables(tables: Sequence[Sequence[int]], lengths: Sequence[int], block_size: int) -> NDArray[np.int32]:
    """The blocks that each sequence's positions are in, padded with 0."""
    array = np.zeros((len(tables), -(-max(lengths) // block_size)), dtype=np.int32)
    for row, blocks, length in zip(array, tables, lengths, strict=True):
        used = blocks[: -(-length // block_size)]
        row[: len(used)] = used
    return array
