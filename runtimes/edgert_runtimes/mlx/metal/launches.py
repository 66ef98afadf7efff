"""Which kernel runs on how many threads, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

from edgert_models.errors import RequestError, UnsupportedError
from edgert_quant.blocks import BlockType

from edgert_runtimes.mlx.metal.sources import PART, RAW_TYPES, Kernel, kernel

MOST_COLUMNS = 8
"""Rows of x up to which their products with W go row by row (gemv): more are worth a tile."""

PAIRS_PER_EXPERT = 4
"""Pairs for each expert, on average, from which on tiles (in which most pairs should have the same expert) are used."""

_SIMDGROUP = 32
_LANES_PER_ROW = 8
_GEMV_GROUP = 2 * _SIMDGROUP
_GEMM_GROUP = 4 * _SIMDGROUP
_TILE_ROWS, _TILE_PAIRS = 64, 32


@dataclass(frozen=True)
class Launch:
    """A kernel with its integer template arguments (T, the type of x and y, is the other one), the shape of y, and how
    many threads in all and in a group (x, y, z).
    """

    kernel: Kernel
    template: tuple[tuple[str, int], ...]
    shape: tuple[int, int]
    grid: tuple[int, int, int]
    group: tuple[int, int, int]


def few_rows(kind: BlockType, rows: int, out: int) -> Launch:
    """x [rows, K] times a matrix of `out` rows, for at most `MOST_COLUMNS` rows of x."""
    columns = (("COLUMNS", rows),)
    return Launch(kernel("gemv", kind), columns, (rows, out), (_gemv_threads(out), 1, 1), (_GEMV_GROUP, 1, 1))


def pairs(kind: BlockType, count: int, experts: int, out: int) -> Launch:
    """Rows of x, each times the matrix of its expert: y [count, out]."""
    if count < PAIRS_PER_EXPERT * experts:
        return Launch(
            kernel("expert_gemv", kind), (), (count, out), (_gemv_threads(out), count, 1), (_GEMV_GROUP, 1, 1)
        )
    grid = (-(-out // _TILE_ROWS) * _GEMM_GROUP, -(-count // _TILE_PAIRS), 1)
    return Launch(kernel("expert_gemm", kind), (), (count, out), grid, (_GEMM_GROUP, 1, 1))


def rows(kind: BlockType, count: int, width: int) -> Launch:
    """Rows of a matrix with `width` columns, by index: y [count, width]."""
    return Launch(kernel("rows", kind), (), (count, width), (width // PART, count, 1), (_SIMDGROUP, 1, 1))


def check_matrix(kind: BlockType, shape: tuple[int, ...], width: int | None = None) -> int:
    """Weights in a row of blocks uint8 [..., bytes of a row]. UnsupportedError for a type without kernels, RequestError
    for blocks that are no rows of it, or not of `width` weights.
    """
    if kind not in RAW_TYPES:
        names = ", ".join(each.name for each in RAW_TYPES)
        raise UnsupportedError(f"there is no Metal kernel for {kind.name}; there are kernels for {names}")
    count, rest = divmod(shape[-1], kind.block_bytes)
    held = count * kind.block_size
    if rest or held == 0 or (width is not None and held != width):
        wanted = "" if width is None else f" of {width} weights"
        raise RequestError(
            f"blocks {list(shape)} are no rows{wanted} of {kind.name}, which has "
            f"{kind.block_bytes} bytes for {kind.block_size} weights",
            parameter="blocks",
        )
    return held


def _gemv_threads(out: int) -> int:
    return -(-out * _LANES_PER_ROW // _GEMV_GROUP) * _GEMV_GROUP
