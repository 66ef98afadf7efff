"""Products with matrices that stay in the file's own blocks, on Apple GPUs."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import mlx.core as mx
from edgert_models.errors import BackendError, RequestError, UnsupportedError
from edgert_quant.blocks import BlockType

from edgert_runtimes.mlx.metal import launches
from edgert_runtimes.mlx.metal.launches import Launch, check_matrix
from edgert_runtimes.mlx.metal.sources import Kernel

FLOATS = (mx.float32, mx.float16, mx.bfloat16)


def raw_matmul(x: mx.array, blocks: mx.array, kind: BlockType) -> mx.array:
    """x Wᵀ. x [..., K] of float32, float16 or bfloat16; blocks uint8 [N, bytes of a row] of a type of `RAW_TYPES`, as
    they are in the file; the result [..., N] has the type of x, the sums are made in float32.

    BackendError where there is no Metal, UnsupportedError for another type, RequestError where shapes do not fit.
    """
    _check(x, blocks, kind, dimensions=2)
    out, width = blocks.shape[0], x.shape[-1]
    flat = x.reshape(-1, width)
    if len(flat) <= launches.MOST_COLUMNS:
        y = _run(launches.few_rows(kind, len(flat), out), [flat, blocks], x.dtype)
    else:  # tiles, of one expert
        launch = launches.pairs(kind, len(flat), 1, out)
        y = _run(launch, [flat, blocks[None], mx.zeros(len(flat), mx.uint32)], x.dtype)
    return y.reshape(*x.shape[:-1], out)


def raw_gather_matmul(x: mx.array, blocks: mx.array, ids: mx.array, kind: BlockType) -> mx.array:
    """Every row of x times the matrices of its experts: y[r, i] = x[r] W[ids[r, i]]ᵀ, or x[r, i] W[ids[r, i]]ᵀ.

    x [rows, K] or [rows, used, K]; blocks uint8 [experts, N, bytes of a row]; ids [rows, used] of int32 or uint32,
    which are read on the device and must be less than `experts`; y [rows, used, N]. Types and errors as in
    `raw_matmul`. Many rows go fastest in the order of their experts (as [pairs, K] with ids [pairs, 1]).
    """
    _check(x, blocks, kind, dimensions=3)
    if x.shape[:-1] not in (ids.shape[:1], ids.shape):
        reason = f"x {list(x.shape)} has neither a row for each row of ids {list(ids.shape)} nor one for each id"
        raise RequestError(reason, parameter="ids")
    experts, out, _ = blocks.shape
    flat = x.reshape(-1, x.shape[-1])
    launch = launches.pairs(kind, ids.size, experts, out)
    return _run(launch, [flat, blocks, ids.reshape(-1)], x.dtype).reshape(*ids.shape, out)


def raw_rows(blocks: mx.array, ids: mx.array, kind: BlockType, dtype: mx.Dtype) -> mx.array:
    """Rows of a matrix as numbers [..., K] of `dtype`: blocks uint8 [N, bytes of a row], ids [...] of int32 or uint32
    less than N. Errors as in `raw_matmul`.
    """
    width = _check_blocks(blocks, kind, dimensions=2)
    launch = launches.rows(kind, ids.size, width)
    return _run(launch, [blocks, ids.reshape(-1)], dtype).reshape(*ids.shape, width)


def _check(x: mx.array, blocks: mx.array, kind: BlockType, dimensions: int) -> None:
    if x.dtype not in FLOATS:
        raise UnsupportedError(f"x is {x.dtype}; it can be float32, float16 or bfloat16")
    _check_blocks(blocks, kind, dimensions, x.shape[-1])


def _check_blocks(blocks: mx.array, kind: BlockType, dimensions: int, width: int | None = None) -> int:
    if not mx.metal.is_available():
        raise BackendError(f"blocks of {kind.name} are multiplied by Metal kernels, and there is no Metal here")
    if blocks.ndim != dimensions or blocks.dtype != mx.uint8:
        reason = f"blocks are uint8 of {dimensions} dimensions, not {blocks.dtype} {list(blocks.shape)}"
        raise RequestError(reason, parameter="blocks")
    return check_matrix(kind, tuple(blocks.shape), width)


def _run(launch: Launch, inputs: list[mx.array], dtype: mx.Dtype) -> mx.array:
    if prod(launch.shape) == 0:
        return mx.zeros(launch.shape, dtype)
    y: mx.array
    (y,) = _compiled(launch.kernel)(
        inputs=inputs,
        template=[("T", dtype), *launch.template],
        grid=launch.grid,
        threadgroup=launch.group,
        output_shapes=[launch.shape],
        output_dtypes=[dtype],
    )
    return y


@cache
def _compiled(kernel: Kernel) -> Any:  # MLX gives it no type
    """MLX compiles it for each T and other template arguments when it first runs, and keeps that."""
    return mx.fast.metal_kernel(
        name=kernel.name,
        input_names=list(kernel.inputs),
        output_names=["y"],
        source=kernel.source,
        header=kernel.header,
    )
