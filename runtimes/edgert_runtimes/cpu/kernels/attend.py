"""Attention with a paged cache.

Each layer's cache has, for every block and kv head, a tile of keys [head_size, lanes] and one of values [lanes,
head_size], where lanes is the block size rounded up to 16: sixteen positions of a key element lie side by side, so that
scores need no sums across lanes. Elements are float32 or IEEE halves.

A row's result depends on its own sequence only. Scores of all positions are computed, then their maximum, exponentials
and sum, then the values are added position after position.
"""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import Device, Kernel, Primitive, device, kernel
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

from edgert_runtimes.cpu.kernels.functions import exp
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

SCORE_SLACK = 32
"""Floats of scratch beyond the scores of whole blocks: the last 16 lanes of a block may reach over its end."""


@device
def first_seen(position: Any, window: Any) -> Any:
    """The first position that a row attends to."""
    return max(0, position - window + 1) if window > 0 else 0


@kernel
def prepare_attend(state: int, record: int) -> int:
    """Chunks of (kv head, row) pairs, by the length of what the rows see."""
    rows, threads = rows_of(state, record), load_i64(state, THREADS)
    if threads == 1:
        return 1
    seen = 0
    for row in range(rows):
        position = load_i32(load_i64(state, POSITIONS), row)
        seen += position + 1 - first_seen(position, load_i64(record, WINDOW))
    units = rows * load_i64(record, KV_HEADS)
    work = seen * load_i64(record, KV_HEADS) * load_i64(record, GROUP) * load_i64(record, HEAD_SIZE) // 8
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
    def attend_row(state: Any, record: Any, row: Any, head: Any, scratch: Any) -> Any:
        heads, width, lanes = load_i64(record, KV_HEADS), load_i64(record, HEAD_SIZE), load_i64(record, LANES)
        block_size, group = load_i64(record, BLOCK_SIZE), load_i64(record, GROUP)
        position = load_i32(load_i64(state, POSITIONS), row)
        first = first_seen(position, load_i64(record, WINDOW))
        first_block, end_block = first // block_size, position // block_size + 1
        start = first_block * block_size  # the position of scores[0]
        table = load_i64(state, BLOCK_TABLES)
        table += 4 * load_i32(load_i64(state, SEQUENCE), row) * load_i64(state, TABLE_WIDTH)
        tile_bytes = width * lanes * size
        room = (end_block - first_block) * block_size + SCORE_SLACK
        query = load_i64(record, X) + 4 * (row * load_i64(record, X_STRIDE) + head * group * width)
        out = load_i64(record, OUT) + 4 * (row * load_i64(record, OUT_STRIDE) + head * group * width)
        scale = float32(load_f64(record, SCALE))
        for block in range(first_block, end_block):
            keys = load_i64(record, KEYS) + (load_i32(table, block) * heads + head) * tile_bytes
            for lane in range(0, min(block_size, position + 1 - block * block_size), 16):
                for g in range(group):
                    target = scratch + 4 * (g * room + block * block_size - start + lane)
                    scores(query + 4 * g * width, keys + lane * size, lanes, width, scale, target)
        count = position + 1 - first
        for g in range(group):
            p = scratch + 4 * (g * room + first - start)
            highest = largest(p, count)
            for i in range(count):
                store_f32(p, i, exp(load_f32(p, i) - highest))
            share_of_one = float32(1.0) / total(p, count)
            zero_bytes(out + 4 * g * width, 4 * width)
            for block in range(first_block, end_block):
                values = load_i64(record, VALUES) + (load_i32(table, block) * heads + head) * tile_bytes
                begin = max(first - block * block_size, 0)
                end = min(position + 1 - block * block_size, block_size)
                at = scratch + 4 * (g * room + block * block_size - start + begin)
                add_values(out + 4 * g * width, at, values + begin * width * size, end - begin, width)
            for i in range(width):
                store_f32(out, g * width + i, load_f32(out, g * width + i) * share_of_one)

    @kernel(name=name)
    def attend(state: int, record: int, chunk: int, thread: int) -> None:
        rows = rows_of(state, record)
        first, end = share(rows * load_i64(record, KV_HEADS), chunk, load_i64(record, CHUNKS))
        scratch = scratch_of(state, thread)
        for unit in range(first, end):  # rows of one head after another: they read the same keys
            attend_row(state, record, unit % rows, unit // rows, scratch)

    assert isinstance(attend_row, Device)
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
