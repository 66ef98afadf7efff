"""Attention with a paged cache.

Each layer's cache has, for every block and kv head, a tile of keys [head_size, lanes] and one of values [lanes,
head_size], where lanes is the block size rounded up to 16: sixteen positions of a key element lie side by side, so that
scores need no sums across lanes. Elements are float32 or IEEE halves.

A row's result depends on its own sequence only. Scores of all positions are computed, then their maximum, exponentials
and sum, then the values are added position after position.
"""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import Kernel, Primitive, device, kernel
from edgert_quant.jit.primitives import (
    load_f32,
    load_f64,
    load_i32,
    load_i64,
    store_f16,
    store_f32,
    zero_bytes,
)
from numpy import float32

from edgert_runtimes.cpu.kernels.rows import OUT, OUT_STRIDE, X_STRIDE, Y_STRIDE, X, Y
from edgert_runtimes.cpu.kernels.table import (
    BLOCK_TABLES,
    CHUNKS,
    CHUNKS_PER_THREAD,
    MIN_CHUNK,
    OPERANDS,
    POSITIONS,
    SEQUENCE,
    SLOTS,
    TABLE_WIDTH,
    THREADS,
    rows_of,
    scratch_of,
    share,
)
from edgert_runtimes.cpu.kernels.vectors import (
    add_values_f16,
    add_values_f32,
    exponentials,
    largest,
    scores_f16,
    scores_f32,
    total,
)

KEYS = OPERANDS + 7
VALUES = OPERANDS + 8
KV_HEADS = OPERANDS + 9
HEAD_SIZE = OPERANDS + 10
BLOCK_SIZE = OPERANDS + 11
LANES = OPERANDS + 12  # block size, rounded up to 16
GROUP = OPERANDS + 13  # query heads of one kv head
SCALE = OPERANDS + 14  # a float64
WINDOW = OPERANDS + 15  # positions seen, or 0

ROW_TILE = 4
"""Rows that go through the cache together."""

SCORE_SLACK = 32
"""Floats of scratch beyond the scores of whole blocks: the last 16 lanes of a block may reach over its end."""


@device
def first_seen(position: Any, window: Any) -> Any:
    """The first position that a row attends to."""
    return max(0, position - window + 1) if window > 0 else 0


@device
def block_of(state: Any, row: Any, index: Any) -> Any:
    """The block that holds the positions from index · block size on of a row's sequence."""
    sequence = load_i32(load_i64(state, SEQUENCE), row)
    return load_i32(load_i64(state, BLOCK_TABLES) + 4 * sequence * load_i64(state, TABLE_WIDTH), index)


@device
def out_of(record: Any, row: Any, head: Any) -> Any:
    """Where the results of a row's heads go that share kv head `head`."""
    offset = head * load_i64(record, GROUP) * load_i64(record, HEAD_SIZE)
    return load_i64(record, OUT) + 4 * (row * load_i64(record, OUT_STRIDE) + offset)


@device
def softmax(p: Any, count: Any) -> Any:
    """In place."""
    highest = largest(p, count)
    exponentials(p, count, highest)
    factor = float32(1.0) / total(p, count)
    for i in range(count):
        store_f32(p, i, load_f32(p, i) * factor)


@kernel
def prepare_attend(state: int, record: int) -> int:
    """Chunks of kv heads and tiles of rows, by the length of what the rows see."""
    rows, threads = rows_of(state, record), load_i64(state, THREADS)
    if threads == 1:
        return 1
    seen = 0
    for row in range(rows):
        position = load_i32(load_i64(state, POSITIONS), row)
        seen += position + 1 - first_seen(position, load_i64(record, WINDOW))
    units = (rows + ROW_TILE - 1) // ROW_TILE * load_i64(record, KV_HEADS)
    work = seen * load_i64(record, KV_HEADS) * load_i64(record, GROUP) * load_i64(record, HEAD_SIZE) // 32
    return int(max(1, min(work // MIN_CHUNK, threads * CHUNKS_PER_THREAD, units)))


def _store_kernel(name: str, size: int, store: Primitive) -> Kernel:
    """X are the keys, Y the values."""

    @kernel(name=name)
    def store_keys_and_values(state: int, record: int, chunk: int, thread: int) -> None:
        first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
        heads, width, lanes = load_i64(record, KV_HEADS), load_i64(record, HEAD_SIZE), load_i64(record, LANES)
        for row in range(first, end):
            slot = load_i32(load_i64(state, SLOTS), row)
            block, offset = slot // load_i64(record, BLOCK_SIZE), slot % load_i64(record, BLOCK_SIZE)
            for head in range(heads):
                tile = (block * heads + head) * width * lanes * size
                key = load_i64(record, X) + 4 * (row * load_i64(record, X_STRIDE) + head * width)
                value = load_i64(record, Y) + 4 * (row * load_i64(record, Y_STRIDE) + head * width)
                keys, values = load_i64(record, KEYS) + tile, load_i64(record, VALUES) + tile
                for i in range(width):
                    store(keys, i * lanes + offset, load_f32(key, i))
                    store(values, offset * width + i, load_f32(value, i))

    return store_keys_and_values


def _attend_kernel(name: str, size: int, scores: Primitive, add_values: Primitive) -> Kernel:
    """X are the queries."""

    @device(inline=False)
    def attend_tile(state: Any, record: Any, first_row: Any, end_row: Any, head: Any, scratch: Any) -> Any:
        """Rows that are likely to see the same blocks, block by block together: all else is each row's own."""
        heads, width, lanes = load_i64(record, KV_HEADS), load_i64(record, HEAD_SIZE), load_i64(record, LANES)
        block_size, group, window = load_i64(record, BLOCK_SIZE), load_i64(record, GROUP), load_i64(record, WINDOW)
        tile_bytes, scale = width * lanes * size, float32(load_f64(record, SCALE))
        room, first_block, end_block = 0, 1 << 40, 0
        for row in range(first_row, end_row):
            position = load_i32(load_i64(state, POSITIONS), row)
            start_block = first_seen(position, window) // block_size
            first_block, end_block = min(first_block, start_block), max(end_block, position // block_size + 1)
            room = max(room, (position // block_size + 1 - start_block) * block_size + SCORE_SLACK)
        for block in range(first_block, end_block):
            for row in range(first_row, end_row):
                position = load_i32(load_i64(state, POSITIONS), row)
                start_block = first_seen(position, window) // block_size
                if start_block <= block and block * block_size <= position:
                    query = load_i64(record, X) + 4 * (row * load_i64(record, X_STRIDE) + head * group * width)
                    keys = load_i64(record, KEYS) + (block_of(state, row, block) * heads + head) * tile_bytes
                    p = scratch + 4 * ((row - first_row) * group * room + (block - start_block) * block_size)
                    for lane in range(0, min(block_size, position + 1 - block * block_size), 16):
                        scores(query, group, keys + lane * size, lanes, width, scale, p + 4 * lane, room)
        for row in range(first_row, end_row):
            position = load_i32(load_i64(state, POSITIONS), row)
            first = first_seen(position, window)
            zero_bytes(out_of(record, row, head), 4 * group * width)
            for g in range(group):
                p = scratch + 4 * (((row - first_row) * group + g) * room + first % block_size)
                softmax(p, position + 1 - first)
        for block in range(first_block, end_block):
            for row in range(first_row, end_row):
                position = load_i32(load_i64(state, POSITIONS), row)
                first = first_seen(position, window)
                begin = max(first - block * block_size, 0)
                count = min(position + 1 - block * block_size, block_size) - begin
                if count > 0 and begin < block_size:
                    values = load_i64(record, VALUES) + (block_of(state, row, block) * heads + head) * tile_bytes
                    at = (block - first // block_size) * block_size + begin
                    p = scratch + 4 * ((row - first_row) * group * room + at)
                    add_values(out_of(record, row, head), group, p, room, values + begin * width * size, count, width)

    @kernel(name=name)
    def attend(state: int, record: int, chunk: int, thread: int) -> None:
        rows = rows_of(state, record)
        tiles = (rows + ROW_TILE - 1) // ROW_TILE
        first, end = share(tiles * load_i64(record, KV_HEADS), chunk, load_i64(record, CHUNKS))
        scratch = scratch_of(state, thread)
        for unit in range(first, end):  # tiles of one head after another: they read the same keys
            row = unit % tiles * ROW_TILE
            attend_tile(state, record, row, min(row + ROW_TILE, rows), unit // tiles, scratch)

    return attend


STORE = {
    "f16": _store_kernel("attend.store_f16", 2, store_f16),
    "f32": _store_kernel("attend.store_f32", 4, store_f32),
}
"""Kernels that store the keys and values of the batch's rows, by type of cache."""

ATTEND = {
    "f16": _attend_kernel("attend.f16", 2, scores_f16, add_values_f16),
    "f32": _attend_kernel("attend.f32", 4, scores_f32, add_values_f32),
}
"""Kernels of `ops.Attend`, once the keys and values are stored."""
