"""How much memory attention takes, and the fields of its records that depend on sizes and types alone."""

from __future__ import annotations

from edgert_models import ops
from edgert_models.graph import Cache

from edgert_runtimes.base import Limits
from edgert_runtimes.cpu.formats import LANES
from edgert_runtimes.cpu.kernels import attend, division, rowkeys, softmax, storing, table, tiles
from edgert_runtimes.cpu.program import Field
from edgert_runtimes.kv_types import KV_TYPES

DIVIDED_CONTEXTS = 2
"""Sequences of the longest context that can be divided among threads in one step: with more, each takes its heads."""

CACHE_SLACK = 64
"""Bytes behind the cache that may be read: the last vector of a head size that is no multiple of 16."""


def block_bytes(cache: Cache, limits: Limits) -> tuple[int, int]:
    """Bytes of the keys and of the values of one kv head of a block. Keys that are values too lie where these do."""
    kind, positions = KV_TYPES[limits.kv_type], _whole(limits.block_size)
    keys = 0 if cache.shared else kind.row_bytes(cache.head_size) * positions
    return keys, kind.row_bytes(_row_size(cache)) * positions


def cache_fields(cache: Cache, limits: Limits) -> dict[int, Field]:
    """How keys and values lie, for all records."""
    kind = KV_TYPES[limits.kv_type]
    key_bytes, value_bytes = block_bytes(cache, limits)
    return {
        division.KV_HEADS: cache.kv_heads,
        tiles.KEY_SIZE: cache.head_size,
        tiles.VALUE_SIZE: cache.value_size,
        tiles.ROW_SIZE: _row_size(cache),
        tiles.BLOCK_SIZE: limits.block_size,
        attend.PAGES: table.WINDOW_SLOTS if limits.has_own_blocks(cache) else table.SLOTS,
        attend.KEY_BYTES: key_bytes,
        attend.VALUE_BYTES: value_bytes,
        attend.PANEL_BYTES: 0 if cache.shared else kind.row_bytes(cache.head_size) * LANES,
        attend.ROW_BYTES: kind.row_bytes(_row_size(cache)),
    }


def store_fields(cache: Cache, limits: Limits) -> dict[int, Field]:
    """The kernels that store keys and values."""
    return {
        attend.STORE_KEY: 0 if cache.shared else storing.STORE_KEY[limits.kv_type],
        attend.STORE_ROW: storing.STORE_ROW[limits.kv_type],
    }


def merge_fields(op: ops.Attend, limits: Limits) -> dict[int, Field]:
    """Sizes and kernels, for attending and merging."""
    return {
        division.GROUP: op.heads // op.kv_heads,
        division.WINDOW: op.reach,
        division.KEPT_ROOM: _kept_parts(op, limits),
        tiles.PART: _part(op),
        attend.MERGE_PART: softmax.merge_part,
        attend.FINISH_PART: softmax.finish_part,
    }


def attend_fields(op: ops.Attend, limits: Limits) -> dict[int, Field]:
    """What attending needs beside."""
    return {
        tiles.PARTS: _parts(op, 0),
        attend.TOTALS: _parts(op, 1),
        tiles.QUERIES: _parts(op, 2),
        attend.SCALE: float(op.scale),
        attend.MULTIPLY_KEYS: (tiles.SCORE_KERNELS if op.v else rowkeys.ROW_SCORE_KERNELS)[limits.kv_type],
        attend.MULTIPLY_VALUES: tiles.VALUE_KERNELS[limits.kv_type],
        attend.WEIGH: softmax.weigh,
    }


def scratch_bytes(op: ops.Attend) -> int:
    """Of each thread: a tile's scores, parts, parts merged so far, and queries."""
    return _parts(op, 2) + 4 * tiles.TOKENS * _whole(op.head_size)


def temporary_bytes(op: ops.Attend, limits: Limits) -> tuple[int, int]:
    """Of all threads: the parts that wait to be merged, and the division."""
    return 4 * _kept_parts(op, limits) * _part(op), 8 * division.division_words(limits.rows)


def _part(op: ops.Attend) -> int:
    """Floats of a part."""
    return tiles.PART_HEADER + _whole(op.value_size)


def _parts(op: ops.Attend, number: int) -> int:
    """Bytes before the first, second … array of parts in a thread's scratch memory."""
    return tiles.SCRATCH + 4 * tiles.TOKENS * _part(op) * number


def _kept_parts(op: ops.Attend, limits: Limits) -> int:
    return DIVIDED_CONTEXTS * op.heads * (limits.context // tiles.TILE + 1)


def _row_size(cache: Cache) -> int:
    """Elements of a row: of a value, or of a key that is a value as well, with zeros up to a whole vector."""
    return _whole(cache.head_size) if cache.shared else cache.value_size


def _whole(count: int) -> int:
    """`count` rounded up to whole vectors."""
    return -(-count // LANES) * LANES
