"""Caches, and attention over them."""

from __future__ import annotations

from edgert_quant.blocks import BlockType

from edgert_runtimes.cuda.kernels.kernel import Kernel, ceil_div

KV_TYPES = (BlockType.F32, BlockType.F16, BlockType.BF16, BlockType.Q8_0, BlockType.Q4_0)
TILED = (BlockType.F16, BlockType.Q8_0, BlockType.Q4_0)
QUERIES = 64
"""Queries (rows times the heads of a group) that a block of `attend_tile` holds."""


def store(kind: BlockType) -> Kernel:
    """Write k [rows, key_width] and v [rows, value_width], which may be 0, to the slots of each row.

    A cache is [slots, width] in blocks of the type, keys and values apart; slots < 0 are left out.
    """
    return Kernel(
        name=f"store_{kind.name}",
        header="cache.cuh",
        call=f"store<{kind.name}>",
        signature="const float *k, const float *v, const int *slots, u8 *keys, u8 *values, int rows, "
        "int key_width, int value_width",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"] * (ceil_div(a["key_width"], 32) + ceil_div(a["value_width"], 32)), 8),
    )


def heads(kind: BlockType, head_size: int, value_size: int) -> Kernel:
    """Normalise and turn the heads of q, in place, and of k; write k and v to the slots of each row as `store` does.

    `heads` is 0 where queries are to stay. With eps below 0 nothing is normalised (norms may be null), and nothing
    turned where the table is null, which is what `angles` makes.
    """
    each = ceil_div(max(head_size, value_size), 32)
    return Kernel(
        name=f"heads_{kind.name}_{each}",
        header="heads.cuh",
        call=f"heads<{kind.name}, {each}>",
        signature="float *q, const float *k, const float *v, const int *slots, u8 *keys, u8 *values, "
        "const float *q_norm, const float *k_norm, const float2 *q_table, const float2 *k_table, float q_eps, "
        "float k_eps, int q_begin, int k_begin, int q_pairs, int k_pairs, int interleaved, int rows, int heads, "
        "int kv_heads, int head_size, int value_size",
        threads=128,
        blocks=lambda a: ceil_div(a["rows"] * (a["heads"] + 2 * a["kv_heads"]), 4),
    )


def copy_blocks() -> Kernel:
    """Copy blocks of a cache, (source, target) of each pair in order; block_bytes are those of a whole block."""
    return Kernel(
        name="copy_blocks",
        header="cache.cuh",
        call="copy_blocks",
        signature="u8 *cache, const int2 *pairs, int count, i64 block_bytes",
        threads=256,
        blocks=lambda a: ceil_div(a["block_bytes"], 16 * 256),
    )


def attend(kind: BlockType, key_size: int, value_size: int, group: int) -> Kernel:
    """Attention of few rows: a block takes a row, heads of one kv head's `group`, and one of `splits` of the positions.

    With one split, out [rows, heads · value_size] is written, and its blocks where `codes` is not null. With more,
    partial [rows · kv_heads · group, splits, value_size + 2] is, and `attend_combine` makes out of it. `window` and
    `softcap` 0: none; `sinks` may be null; where `values` are `keys`, values are the beginning of these.
    """
    return Kernel(
        name=f"attend_{kind.name}_{key_size}x{value_size}_{group}",
        header="attend.cuh",
        call=f"attend<{kind.name}, {key_size}, {value_size}, {group}, {heads_at_once(group)}>",
        signature="const float *q, const u8 *keys, const u8 *values, const int *tables, const int *sequence, "
        "const int *positions, const float *sinks, float *out, s8 *codes, float4 *scales, float *partial, int rows, "
        "int kv_heads, int table_width, int block_size, int window, float scale, float softcap, int splits",
        threads=128,
        blocks=lambda a: a["rows"] * a["kv_heads"] * (group // heads_at_once(group)) * a["splits"],
    )


def heads_at_once(group: int) -> int:
    """Heads of a kv head that a block of `attend` does: the most up to 8 that divide the group."""
    return max(heads for heads in range(1, 9) if group % heads == 0)


def attend_combine(value_size: int) -> Kernel:
    """out [rows, heads · value_size] from the partial results of `attend`."""
    return Kernel(
        name=f"attend_combine_{value_size}",
        header="attend.cuh",
        call=f"attend_combine<{value_size}>",
        signature="const float *partial, const float *sinks, float *out, s8 *codes, float4 *scales, int rows, "
        "int heads, int splits",
        threads=128,
        blocks=lambda a: ceil_div(a["rows"] * a["heads"], 4),
    )


def attend_tile(kind: BlockType, head_size: int, group: int) -> Kernel:
    """Attention of many rows: `tiles` int2 [count] of (first row, rows), at most `tile_rows`, all of one sequence."""
    return Kernel(
        name=f"attend_tile_{kind.name}_{head_size}_{group}",
        header="attend_tile.cuh",
        call=f"attend_tile<{kind.name}, {head_size}, {group}>",
        signature="const float *q, const u8 *keys, const u8 *values, const int *tables, const int *sequence, "
        "const int *positions, const float *sinks, float *out, const int2 *tiles, int count, int kv_heads, "
        "int table_width, int block_size, int window, float scale, float softcap",
        threads=128,
        blocks=lambda a: a["count"] * a["kv_heads"],
    )


def fits_tiles(kind: BlockType, head_size: int, group: int) -> bool:
    """Whether there is an `attend_tile`: numbers that two halves hold, and what a block's registers have room for."""
    return kind in TILED and head_size <= 128 and head_size % max(16, kind.block_size) == 0 and group <= QUERIES


def tile_rows(group: int) -> int:
    """Rows of a tile of `attend_tile` at most."""
    return QUERIES // group
