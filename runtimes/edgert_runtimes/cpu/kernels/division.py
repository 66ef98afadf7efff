"""How the attention of a batch is divided.

Rows of one sequence that follow each other form *groups* of at most TOKENS pairs of a row and a head: these read keys
and values together. A group and the heads of one kv head (at most TOKENS of them, a *lane*) are a unit of work. Chunks
are made of whole units, in the order of lanes; but a group that is long beside the rest, as a sequence that decodes in
a long context, is divided by tiles of positions. Then every tile's part is kept, and a second record merges them.
"""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import device, kernel
from edgert_quant.jit.primitives import load_i32, load_i64, store_i64

from edgert_runtimes.cpu.kernels.table import (
    CHUNKS_PER_THREAD,
    MIN_CHUNK,
    OPERANDS,
    POSITIONS,
    SEQUENCE,
    THREADS,
    rows_of,
)
from edgert_runtimes.cpu.kernels.tiles import KEY_SIZE, TILE, TOKENS, VALUE_SIZE

KV_HEADS = OPERANDS + 9
GROUP = OPERANDS + 15  # query heads of one kv head
WINDOW = OPERANDS + 16  # see `ops.Attend.reach`
DIVISION = OPERANDS + 17  # int64 [division_words(rows)], as follows; made by prepare
KEPT_ROOM = OPERANDS + 18  # parts that can be kept for merging

GROUPS = 0
"""How many groups there are."""
COST = 1
"""Of all groups and one lane, in rough nanoseconds."""
DIVIDED = 2
"""How many rows of groups are divided by tiles."""
FIRST_GROUP = 3

GROUP_WORDS = 7
FIRST_ROW = 0
ROWS = 1
BEFORE = 2  # cost of the groups before it
TILE_COST = 3
FIRST_TILE = 4
TILES = 5
KEPT = 6  # number of its first kept part, or -1: not divided

MULTIPLIES = 12
"""Pairs of multiply-adds that a core does in a nanosecond, roughly."""
READING = 3
"""Tokens that could be worked on while a position is read."""


def division_words(rows: int) -> int:
    """Words of memory for the division of so many rows."""
    return FIRST_GROUP + GROUP_WORDS * rows


@device
def first_seen(position: Any, window: Any) -> Any:
    """The first position that a row attends to."""
    if window < 0:
        return position - position % -window
    return max(0, position - window + 1) if window > 0 else 0


@device
def group_at(record: Any, index: Any) -> Any:
    """The address of a group's words."""
    return load_i64(record, DIVISION) + 8 * (FIRST_GROUP + GROUP_WORDS * index)


@device
def lanes_of(record: Any) -> Any:
    """How many lanes there are."""
    return load_i64(record, KV_HEADS) * ((load_i64(record, GROUP) + TOKENS - 1) // TOKENS)


@device
def continues(state: Any, row: Any) -> Any:
    """Whether a row is the position behind that of the row before it, in the same sequence."""
    positions, sequence = load_i64(state, POSITIONS), load_i64(state, SEQUENCE)
    same = load_i32(sequence, row) == load_i32(sequence, row - 1)
    return same and load_i32(positions, row) == load_i32(positions, row - 1) + 1


@device(inline=False)
def form_groups(state: Any, record: Any) -> Any:
    """Fill in the groups, none of them divided."""
    rows, window = rows_of(state, record), load_i64(record, WINDOW)
    width = (load_i64(record, KEY_SIZE) + load_i64(record, VALUE_SIZE)) // 2
    heads = min(load_i64(record, GROUP), TOKENS)
    positions = load_i64(state, POSITIONS)
    count, cost, row = 0, 0, 0
    while row < rows:
        end = row + 1
        while end < rows and (end + 1 - row) * heads <= TOKENS and continues(state, end):
            end += 1
        first, last = first_seen(load_i32(positions, row), window), load_i32(positions, end - 1)
        tiles = last // TILE + 1 - first // TILE
        work = (last + 1 - first) * width * (READING + (end - row) * heads) // MULTIPLIES
        group = group_at(record, count)
        store_i64(group, FIRST_ROW, row)
        store_i64(group, ROWS, end - row)
        store_i64(group, BEFORE, cost)
        store_i64(group, TILE_COST, work // tiles + 1)
        store_i64(group, FIRST_TILE, first // TILE)
        store_i64(group, TILES, tiles)
        store_i64(group, KEPT, -1)
        cost += (work // tiles + 1) * tiles
        count += 1
        row = end
    division = load_i64(record, DIVISION)
    store_i64(division, GROUPS, count)
    store_i64(division, COST, cost)
    store_i64(division, DIVIDED, 0)


@kernel
def prepare_attend(state: int, record: int) -> int:
    """Form the groups, divide those that cost more than a chunk should, and count the chunks."""
    form_groups(state, record)
    division, lanes, threads = load_i64(record, DIVISION), lanes_of(record), load_i64(state, THREADS)
    count, cost = load_i64(division, GROUPS), load_i64(division, COST) * lanes
    most = min(cost // MIN_CHUNK, threads * CHUNKS_PER_THREAD)
    if threads == 1 or most < 2:
        return int(min(count, 1))
    kept, divided, units = 0, 0, 0
    for index in range(count):
        group = group_at(record, index)
        rows, tiles = load_i64(group, ROWS), load_i64(group, TILES)
        parts = tiles * rows * load_i64(record, KV_HEADS) * load_i64(record, GROUP)
        large = tiles > 1 and load_i64(group, TILE_COST) * tiles > cost // most
        if large and kept + parts <= load_i64(record, KEPT_ROOM):
            store_i64(group, KEPT, kept)
            kept += parts
            divided += rows
            units += tiles
        else:
            units += 1
    store_i64(division, DIVIDED, divided)
    return int(min(most, units * lanes))
