"""Attention with a paged cache, as three records:

    store    per row: its keys and values, rounded to the cache's type, into its slot; where values are the beginning of
             their keys, keys alone, in rows as values lie
    attend   per unit (see `division`): the tiles of positions that its rows see, one after another
    merge    per row and head of divided groups: the parts of its tiles

`caches` says how keys and values lie in a block, `tiles` multiplies, and `softmax` says what a part is. A row's
result depends on its own sequence only: tiles begin at multiples of TILE, and parts are merged in their order, whoever
made them.
"""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import device, kernel
from edgert_quant.jit.primitives import (
    call3,
    call4,
    call6,
    copy_bytes,
    load_f32,
    load_f64,
    load_i32,
    load_i64,
    store_f32,
    store_i64,
)
from numpy import float32

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.kernels.division import (
    BEFORE,
    COST,
    DIVIDED,
    DIVISION,
    FIRST_ROW,
    FIRST_TILE,
    GROUP,
    GROUPS,
    KEPT,
    KV_HEADS,
    ROWS,
    TILE_COST,
    TILES,
    WINDOW,
    first_seen,
    group_at,
    lanes_of,
)
from edgert_runtimes.cpu.kernels.rows import OUT, OUT_STRIDE, X_STRIDE, Y_STRIDE, X, Y
from edgert_runtimes.cpu.kernels.table import (
    CHUNKS,
    OPERANDS,
    POSITIONS,
    SEQUENCE,
    TABLE_WIDTH,
    divide,
    rows_of,
    scratch_of,
    share,
)
from edgert_runtimes.cpu.kernels.tiles import (
    AHEAD,
    BLOCK_SIZE,
    BLOCKS_AHEAD,
    ENTRIES,
    HIGH,
    KEY_SIZE,
    LOW,
    MARGIN,
    PART,
    PART_HEADER,
    PARTS,
    QUERIES,
    ROW_SIZE,
    SCORE_STRIDE,
    SCORES,
    TILE,
    TOKENS,
    VALUE_ENTRIES,
    VALUE_SIZE,
)
from edgert_runtimes.cpu.kernels.vectors import exp, soft_capped

KEYS = OPERANDS + 7
VALUES = OPERANDS + 8
SCALE = OPERANDS + 19  # a float64
VALUE_BYTES = OPERANDS + 20  # of the values of one kv head in a block
PANEL_BYTES = OPERANDS + 21  # of 16 keys; 0: keys lie in the rows of values, which are their beginning
ROW_BYTES = OPERANDS + 22  # of one position's values
TOTALS = OPERANDS + 23  # bytes from the start of the scratch memory to parts merged so far
KEPT_PARTS = OPERANDS + 24  # address of the parts that `merge` merges
MULTIPLY_KEYS = OPERANDS + 25
MULTIPLY_VALUES = OPERANDS + 26
STORE_KEY = OPERANDS + 27
WEIGH = OPERANDS + 28  # the kernels of `softmax`
MERGE_PART = OPERANDS + 29
FINISH_PART = OPERANDS + 30
SINKS = OPERANDS + 31  # address of float32 [heads], or 0
KEY_BYTES = OPERANDS + 34  # of the keys of one kv head in a block
STORE_ROW = OPERANDS + 35
PAGES = OPERANDS + 36  # the word of the state with the address of its slots; that of its block tables is the next one

SOFT_CAP = OPERANDS + 38  # a float64, or 0

WEIGHED_AHEAD = 4
"""Blocks of values that are fetched while scores become weights."""

STAIR = 8
"""Tokens that wait for each other's last positions, about, where rows end one after another."""


@kernel
def store(state: int, record: int, chunk: int, thread: int) -> None:
    """X are the keys, Y the values; of keys that lie in rows, both are the keys."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    heads, panel_bytes = load_i64(record, KV_HEADS), load_i64(record, PANEL_BYTES)
    key_size = load_i64(record, KEY_SIZE)
    row_size = load_i64(record, VALUE_SIZE) if panel_bytes > 0 else key_size
    for row in range(first, end):
        slot = load_i32(load_i64(state, load_i64(record, PAGES)), row)
        block, place = slot // load_i64(record, BLOCK_SIZE), slot % load_i64(record, BLOCK_SIZE)
        for head in range(heads):
            unit = block * heads + head
            if panel_bytes > 0:
                key = load_i64(record, X) + 4 * (row * load_i64(record, X_STRIDE) + head * key_size)
                panel = load_i64(record, KEYS) + unit * load_i64(record, KEY_BYTES) + place // LANES * panel_bytes
                call4(load_i64(record, STORE_KEY), key, panel, place % LANES, key_size)
            value = load_i64(record, Y) + 4 * (row * load_i64(record, Y_STRIDE) + head * row_size)
            target = load_i64(record, VALUES) + unit * load_i64(record, VALUE_BYTES)
            call3(load_i64(record, STORE_ROW), value, target + place * load_i64(record, ROW_BYTES), row_size)


@device
def out_of(record: Any, row: Any, head: Any) -> Any:
    """Where the result of a row's head goes."""
    return load_i64(record, OUT) + 4 * (row * load_i64(record, OUT_STRIDE) + head * load_i64(record, VALUE_SIZE))


@device
def finish(record: Any, total: Any, row: Any, head: Any) -> Any:
    """The result of a row's head from all its parts merged. A sink is one more score, whose value is zero."""
    sinks = load_i64(record, SINKS)
    if sinks != 0:
        store_f32(total, 1, load_f32(total, 1) + exp(load_f32(sinks, head) - load_f32(total, 0)))
    call3(load_i64(record, FINISH_PART), total, out_of(record, row, head), load_i64(record, VALUE_SIZE))


@device
def vectors_of(record: Any) -> Any:
    """Vectors of output in a part."""
    return (load_i64(record, PART) - PART_HEADER) // LANES


@device(inline=False)
def take_queries(record: Any, scratch: Any, first_row: Any, rows: Any, first_head: Any, heads: Any) -> Any:
    """The scaled queries of the tokens, element by element; for keys in rows token by token, with zeros behind."""
    width, tokens, scale = load_i64(record, KEY_SIZE), rows * heads, float32(load_f64(record, SCALE))
    target, in_rows, row_size = scratch + load_i64(record, QUERIES), load_i64(record, PANEL_BYTES) == 0, 0
    if in_rows:
        row_size = load_i64(record, ROW_SIZE)
    for token in range(tokens):
        row, head = first_row + token // heads, first_head + token % heads
        query = load_i64(record, X) + 4 * (row * load_i64(record, X_STRIDE) + head * width)
        for i in range(width):
            place = token * row_size + i if in_rows else i * tokens + token
            store_f32(target, place, load_f32(query, i) * scale)
        for i in range(width, row_size):
            store_f32(target, token * row_size + i, float32(0.0))


@device
def place_entry(scratch: Any, index: Any, address: Any, position: Any) -> Any:
    """Set down an entry of `tiles`."""
    store_i64(scratch + ENTRIES, 2 * index, address)
    store_i64(scratch + ENTRIES, 2 * index + 1, position)


@device(inline=False)
def list_entries(record: Any, scratch: Any, blocks: Any, head: Any, start: Any, low: Any, high: Any, seen: Any) -> Any:
    """List what holds positions low … high of the tile that begins at `start`: of a sequence whose block table is
    `blocks` and of which `seen` positions will be read. How many panels that are.
    """
    heads, size, step = load_i64(record, KV_HEADS), load_i64(record, BLOCK_SIZE), load_i64(record, KEY_BYTES)
    panel_bytes, value_bytes = load_i64(record, PANEL_BYTES), load_i64(record, VALUE_BYTES)
    first, end = (start + low) // size, (start + high - 1) // size + 1
    count = 0
    for block in range(first, end):
        keys = load_i64(record, KEYS) + (load_i32(blocks, block) * heads + head) * step
        for lane in range(0, size, LANES):
            position = block * size + lane - start
            if position + LANES > low and position < high:
                place_entry(scratch, count, keys + lane // LANES * panel_bytes, position)
                count += 1
    panels = count
    store_i64(scratch, VALUE_ENTRIES, scratch + ENTRIES + 16 * panels)
    for block in range(first, end):
        values = load_i64(record, VALUES) + (load_i32(blocks, block) * heads + head) * value_bytes
        place_entry(scratch, count, values, block * size - start)
        count += 1
    for i in range(AHEAD):
        next_one = min(start + high + LANES * i, seen - 1)
        keys = load_i64(record, KEYS) + (load_i32(blocks, next_one // size) * heads + head) * step
        place_entry(scratch, count + i, keys + next_one % size // LANES * panel_bytes, TILE)
    return panels


@device(inline=False)
def list_rows(record: Any, scratch: Any, blocks: Any, head: Any, start: Any, low: Any, high: Any, seen: Any) -> Any:
    """The same for keys in rows. How many blocks that are."""
    heads, size, step = load_i64(record, KV_HEADS), load_i64(record, BLOCK_SIZE), load_i64(record, VALUE_BYTES)
    first, end = (start + low) // size, (start + high - 1) // size + 1
    for block in range(first, end + BLOCKS_AHEAD):
        rows = load_i64(record, VALUES) + (load_i32(blocks, min(block, (seen - 1) // size)) * heads + head) * step
        place_entry(scratch, block - first, rows, block * size - start)
    store_i64(scratch, VALUE_ENTRIES, scratch + ENTRIES)
    store_i64(scratch, LOW, low)
    store_i64(scratch, HIGH, high)
    return end - first


@device
def begin_of(position: Any, window: Any, start: Any) -> Any:
    """The first position of a tile that a row sees, or TILE."""
    return min(max(first_seen(position, window) - start, 0), TILE)


@device
def end_of(position: Any, start: Any) -> Any:
    """Behind the last position of a tile that a row sees; not positive if it sees none."""
    return min(position + 1 - start, TILE)


@device(inline=False)
def weigh(record: Any, scratch: Any, token: Any, heads: Any, begin: Any, end: Any) -> Any:
    """Scores → weights, and parts without their outputs, of the tokens of one row. The first tokens fetch the first
    blocks of values.
    """
    values, cap = load_i64(scratch, VALUE_ENTRIES), float32(load_f64(record, SOFT_CAP))
    for i in range(token, token + heads):
        block, size = load_i64(values, 2 * i), load_i64(record, VALUE_BYTES) if i < WEIGHED_AHEAD else 0
        part = scratch + load_i64(record, PARTS) + 4 * i * load_i64(record, PART)
        scores = scratch + SCORES + 4 * (MARGIN + i * SCORE_STRIDE + begin)
        if cap != 0:
            soft_capped(scores, scores, end - begin, cap)
        call6(load_i64(record, WEIGH), scores, end - begin, part, vectors_of(record), block, size)


@device
def add_values(record: Any, scratch: Any, token: Any, tokens: Any, begin: Any, end: Any) -> Any:
    """Add the values of some positions to the parts of some tokens."""
    if begin < end:
        call6(load_i64(record, MULTIPLY_VALUES), record, scratch, token, tokens, begin, end)


@device(inline=False)
def add_all_values(record: Any, scratch: Any, position: Any, rows: Any, heads: Any, start: Any) -> Any:
    """Every row its own positions, in order, as many rows together as possible. `position` is that of the first row."""
    window = load_i64(record, WINDOW)
    done = begin_of(position + rows - 1, window, start)
    for i in range(rows):
        begin, end = begin_of(position + i, window, start), end_of(position + i, start)
        if begin >= done:
            break
        add_values(record, scratch, i * heads, heads, begin, min(end, done))
    stair = max(1, STAIR // heads)
    for i in range(0, rows, stair):
        end = end_of(position + i, start)
        add_values(record, scratch, i * heads, (rows - i) * heads, done, end)
        done = max(done, end)
        for j in range(i + 1, min(i + stair, rows)):
            add_values(record, scratch, j * heads, heads, done, end_of(position + j, start))


@device(inline=False)
def attend_unit(state: Any, record: Any, scratch: Any, group: Any, lane: Any, first: Any, end: Any) -> Any:
    """Tiles first … end of a group's, for the heads of a lane."""
    window, part_bytes = load_i64(record, WINDOW), 4 * load_i64(record, PART)
    per_head = (load_i64(record, GROUP) + TOKENS - 1) // TOKENS
    kv_head, passed = lane // per_head, lane % per_head * TOKENS
    first_head, heads = kv_head * load_i64(record, GROUP) + passed, min(load_i64(record, GROUP) - passed, TOKENS)
    first_row, rows = load_i64(group, FIRST_ROW), load_i64(group, ROWS)
    position = load_i32(load_i64(state, POSITIONS), first_row)
    sequence = load_i32(load_i64(state, SEQUENCE), first_row)
    blocks = load_i64(state, load_i64(record, PAGES) + 1) + 4 * sequence * load_i64(state, TABLE_WIDTH)
    all_heads, kept = load_i64(record, KV_HEADS) * load_i64(record, GROUP), load_i64(group, KEPT)
    take_queries(record, scratch, first_row, rows, first_head, heads)
    for tile in range(first, end):
        start = (load_i64(group, FIRST_TILE) + tile) * TILE
        low, high = begin_of(position, window, start), end_of(position + rows - 1, start)
        if load_i64(record, PANEL_BYTES) > 0:
            count = list_entries(record, scratch, blocks, kv_head, start, low, high, position + rows)
        else:
            count = list_rows(record, scratch, blocks, kv_head, start, low, high, position + rows)
        call4(load_i64(record, MULTIPLY_KEYS), record, scratch, count, rows * heads)
        for i in range(rows):
            begin, stop = begin_of(position + i, window, start), end_of(position + i, start)
            if begin < stop:
                weigh(record, scratch, i * heads, heads, begin, stop)
        add_all_values(record, scratch, position, rows, heads, start)
        for i in range(rows):
            begin, stop = begin_of(position + i, window, start), end_of(position + i, start)
            if begin >= stop:
                continue
            parts = scratch + load_i64(record, PARTS) + i * heads * part_bytes
            totals = scratch + load_i64(record, TOTALS) + i * heads * part_bytes
            if kept >= 0:
                number = kept + (tile * rows + i) * all_heads + first_head
                copy_bytes(load_i64(record, KEPT_PARTS) + number * part_bytes, parts, heads * part_bytes)
                continue
            if first_seen(position + i, window) >= start:
                copy_bytes(totals, parts, heads * part_bytes)
            else:
                for head in range(heads):
                    total, part = totals + head * part_bytes, parts + head * part_bytes
                    call3(load_i64(record, MERGE_PART), total, part, vectors_of(record))
            if position + i < start + TILE:
                for head in range(heads):
                    finish(record, totals + head * part_bytes, first_row + i, first_head + head)


@kernel
def attend(state: int, record: int, chunk: int, thread: int) -> None:
    """X are the queries. A chunk has the tiles, or groups that are not divided, that begin in its share of the cost."""
    division, chunks, scratch = load_i64(record, DIVISION), load_i64(record, CHUNKS), scratch_of(state, thread)
    cost = load_i64(division, COST)
    low, high = share(cost * lanes_of(record), chunk, chunks)
    for lane in range(low // cost, (high + cost - 1) // cost):
        for index in range(load_i64(division, GROUPS)):
            group = group_at(record, index)
            before, step, tiles = load_i64(group, BEFORE), load_i64(group, TILE_COST), load_i64(group, TILES)
            begin, units = lane * cost + before, tiles
            if load_i64(group, KEPT) < 0:
                step, units = step * tiles, 1
            first = min(max((low - begin + step - 1) // step, 0), units)
            end = min(max((high - begin + step - 1) // step, 0), units)
            if first < end:
                attend_unit(state, record, scratch, group, lane, first, end if units == tiles else tiles)


@kernel
def prepare_merge(state: int, record: int) -> int:
    """Rows of divided groups, and all their heads, in equal chunks; often there are none."""
    heads = load_i64(record, KV_HEADS) * load_i64(record, GROUP)
    units = load_i64(load_i64(record, DIVISION), DIVIDED) * heads
    return int(divide(state, units, load_i64(record, PART))) if units > 0 else 0


@kernel
def merge(state: int, record: int, chunk: int, thread: int) -> None:
    """A row's head is a unit; its parts are merged in the order of the tiles."""
    division, heads = load_i64(record, DIVISION), load_i64(record, KV_HEADS) * load_i64(record, GROUP)
    low, high = share(load_i64(division, DIVIDED) * heads, chunk, load_i64(record, CHUNKS))
    part_bytes, before = 4 * load_i64(record, PART), 0
    for index in range(load_i64(division, GROUPS)):
        group = group_at(record, index)
        rows, kept = load_i64(group, ROWS), load_i64(group, KEPT)
        if kept < 0:
            continue
        for unit in range(max(low, before), min(high, before + rows * heads)):
            i, head = (unit - before) // heads, (unit - before) % heads
            row = load_i64(group, FIRST_ROW) + i
            position = load_i32(load_i64(state, POSITIONS), row)
            first = first_seen(position, load_i64(record, WINDOW)) // TILE - load_i64(group, FIRST_TILE)
            end = position // TILE + 1 - load_i64(group, FIRST_TILE)
            part = load_i64(record, KEPT_PARTS) + part_bytes * (kept + (first * rows + i) * heads + head)
            for tile in range(1, end - first):
                other = part + tile * rows * heads * part_bytes
                call3(load_i64(record, MERGE_PART), part, other, vectors_of(record))
            finish(record, part, row, head)
        before += rows * heads
