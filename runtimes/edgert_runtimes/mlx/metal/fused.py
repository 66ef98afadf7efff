"""What lies between the matrix products of a step of decoding, in few kernels: many small ones cost more than what they
compute.

Rows are those of a step, each of a sequence of its own. Sums are made in float32. The kernels' texts say what they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import mlx.core as mx

from edgert_runtimes.mlx.metal.sources import read

BODIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "heads": (
        ("q", "k", "v", "q_weight", "k_weight", "frequencies", "positions", "numbers"),
        ("queries", "keys", "values"),
    ),
    "attention": (("queries", "keys", "values", "tables", "positions", "sinks", "numbers"), ("y",)),
    "route": (("logits", "numbers"), ("chosen", "shares", "peaks")),
    "sum_norm": (("a", "b", "shares", "weight", "numbers"), ("total", "normal", "cast")),
}
"""The arrays that each kernel reads, and those that it writes."""

_SIMDGROUP = 32
_GROUP = 256
_MOST_SHARED = 16 << 10
"""Bytes of a group's memory for the parts of attention, half of what there is."""


def source(body: str) -> str:
    """The text of a kernel of `BODIES`."""
    return read(f"fused/{body}.metal")


def heads(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    weights: tuple[mx.array, mx.array] | None,
    frequencies: mx.array | None,
    positions: mx.array,
    numbers: mx.array,
    *,
    sizes: tuple[int, int, int, int],
    first: int,
    interleaved: bool,
    dtypes: tuple[mx.Dtype, mx.Dtype],
) -> list[mx.array]:
    """Queries [rows, heads · size], keys [1, kv_heads, rows, size] and values [1, kv_heads, rows, value_size] as
    attention takes them, from products of as many elements [rows, …]. `sizes` are heads, kv_heads, size and value_size;
    `weights` those of the norms of queries and keys, `frequencies` [pairs] those of the rotation, or None for none;
    `numbers` the eps of both norms and the magnitude; `dtypes` those of queries and of the cache.
    """
    count, kv_count, size, value_size = sizes
    rows = q.shape[0]
    unused = numbers
    template = {
        "T": dtypes[0],
        "C": dtypes[1],
        "HEADS": count,
        "KV_HEADS": kv_count,
        "SIZE": size,
        "VALUE_SIZE": value_size,
        "FIRST": first,
        "PAIRS": 0 if frequencies is None else frequencies.size,
        "INTERLEAVED": int(interleaved),
        "NORM": int(weights is not None),
    }
    return _run(
        "heads",
        [q, k, v, *(weights or (unused, unused)), unused if frequencies is None else frequencies, positions, numbers],
        template,
        (_SIMDGROUP * (count + 2 * kv_count), rows, 1),
        _SIMDGROUP,
        [(rows, count * size), (1, kv_count, rows, size), (1, kv_count, rows, value_size)],
        [dtypes[0], dtypes[1], dtypes[1]],
    )


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    tables: mx.array,
    positions: mx.array,
    sinks: mx.array | None,
    numbers: mx.array,
    *,
    heads: int,
    block_size: int,
    reach: int,
    capped: bool,
) -> mx.array:
    """Results [rows, heads · value_size] in the type of queries [rows, heads · size], over keys [1, kv_heads, slots,
    size] and values alike; `tables` [rows, blocks], `positions` [rows] and `reach` (of `ops.Attend`) say what each row
    attends to. `numbers` are the scale and the cap of scores.
    """
    rows, value_size = queries.shape[0], values.shape[3]
    groups = 16 if 4 * 16 * value_size <= _MOST_SHARED else 8
    template = {
        "T": queries.dtype,
        "HEADS": heads,
        "KV_HEADS": keys.shape[1],
        "SIZE": keys.shape[3],
        "VALUE_SIZE": value_size,
        "BLOCK": block_size,
        "REACH": abs(reach),  # MLX makes a name of all these, in which there can be no minus
        "CHUNKED": int(reach < 0),
        "SINKS": int(sinks is not None),
        "CAPPED": int(capped),
        "GROUPS": groups,
    }
    (y,) = _run(
        "attention",
        [queries, keys, values, tables, positions, numbers if sinks is None else sinks, numbers],
        template,
        (_SIMDGROUP * groups * heads, rows, 1),
        _SIMDGROUP * groups,
        [(rows, heads * value_size)],
        [queries.dtype],
    )
    return y


def route(logits: mx.array, numbers: mx.array, *, used: int, normalized: bool) -> list[mx.array]:
    """Of logits [rows, experts] the chosen experts uint32 [rows, used], their weights float32 [rows, used] by softmax
    over them or over all, times `numbers`[0], and peaks [rows, 1]: the largest logit, or NaN where there is one.
    """
    rows, experts = logits.shape
    template = {"EXPERTS": experts, "USED": used, "NORMALIZED": int(normalized)}
    shapes = [(rows, used), (rows, used), (rows, 1)]
    dtypes = [mx.uint32, mx.float32, mx.float32]
    return _run("route", [logits, numbers], template, (_GROUP, rows, 1), _GROUP, shapes, dtypes)


def sum_norm(
    a: mx.array,
    b: mx.array,
    shares: mx.array | None,
    weight: mx.array,
    numbers: mx.array,
    dtype: mx.Dtype,
    between: tuple[int, ...] = (),
) -> list[mx.array]:
    """total = a + b, or a + Σ_u shares[:, u] b[:, u], and total normalised by its root mean square with eps
    `numbers`[0]: [rows, width] in float32, the latter as `dtype` too, [rows, *between, width]. b is [rows, width], or
    [rows, used, width] with shares [rows, used].
    """
    rows, width = a.shape
    template = {"T": dtype, "WIDTH": width, "USED": 0 if shares is None else shares.shape[1]}
    inputs = [a, b, numbers if shares is None else shares, weight, numbers]
    shapes, dtypes = [(rows, width), (rows, width), (rows, *between, width)], [mx.float32, mx.float32, dtype]
    return _run("sum_norm", inputs, template, (_GROUP, rows, 1), _GROUP, shapes, dtypes)


def _run(
    body: str,
    inputs: Sequence[mx.array],
    template: dict[str, Any],
    grid: tuple[int, int, int],
    group: int,
    shapes: Sequence[tuple[int, ...]],
    dtypes: Sequence[mx.Dtype],
) -> list[mx.array]:
    found: list[mx.array] = kernel(body)(
        inputs=list(inputs),
        template=list(template.items()),
        grid=grid,
        threadgroup=(group, 1, 1),
        output_shapes=list(shapes),
        output_dtypes=list(dtypes),
    )
    return found


@cache
def kernel(body: str) -> Any:  # MLX gives it no type
    """A kernel of `BODIES`; MLX compiles it for each set of template arguments."""
    inputs, outputs = BODIES[body]
    return mx.fast.metal_kernel(
        name=f"edgert_{body}", input_names=list(inputs), output_names=list(outputs), source=source(body)
    )
