"""Matrices: products with few rows and with many, and rows looked up."""

from __future__ import annotations

from edgert_quant.blocks import BlockType

from edgert_runtimes.cuda.kernels.catalogue.types import FLOATS, INPUTS, OUTPUTS, TILE_OUT, TILE_ROWS
from edgert_runtimes.cuda.kernels.kernel import Kernel, ceil_div

COLUMNS = range(1, 9)
"""Rows of activations that `linear` multiplies at once; from more on `gemm` is for."""


def linear(kind: BlockType, columns: int) -> Kernel:
    """y [columns, out] = x Wᵀ + bias + add, where these are not null, for few rows of x."""
    return Kernel(
        name=f"linear_{kind.name}_{columns}",
        header="linear.cuh",
        call=f"linear<{kind.name}, {columns}>",
        signature=f"const u8 *w, {INPUTS}, const float *bias, const float *add, float *y, int out, int k",
        threads=128,
        blocks=lambda a: ceil_div(a["out"], OUTPUTS),
    )


def linear_several(kinds: tuple[BlockType, ...], columns: int) -> Kernel:
    """`linear` with two or three matrices, each with a result of its own, that read the same x; what has no matrix is
    null, and has no outputs.
    """
    types = (*kinds, kinds[-1])[:3]
    return Kernel(
        name=f"linear_{'_'.join(kind.name for kind in types)}_{columns}",
        header="linear.cuh",
        call=f"linear_several<{', '.join(kind.name for kind in types)}, {columns}>",
        signature=f"const u8 *w0, const u8 *w1, const u8 *w2, {INPUTS}, const float *bias0, const float *bias1, "
        "const float *bias2, float *y0, float *y1, float *y2, int out0, int out1, int out2, int k",
        threads=128,
        blocks=lambda a: sum(ceil_div(a[f"out{i}"], OUTPUTS) for i in range(3)),
    )


def gemm(kind: BlockType) -> Kernel:
    """y [rows, out] = x Wᵀ + bias + add, where these are not null, for many rows of x."""
    return Kernel(
        name=f"gemm_{kind.name}",
        header="gemm.cuh",
        call=f"gemm<{kind.name}>",
        signature=f"const u8 *w, {INPUTS}, const float *bias, const float *add, float *y, int rows, int out, int k",
        threads=256,
        blocks=lambda a: ceil_div(a["out"], TILE_OUT) * ceil_div(a["rows"], TILE_ROWS),
    )


def head_linear(kind: BlockType, columns: int) -> Kernel:
    """y [columns, heads, out + rest] but the rest = x [columns, heads, k + rest] but the rest times W [heads, out, k]
    head by head, for few rows of x.
    """
    return Kernel(
        name=f"head_linear_{kind.name}_{columns}",
        header="linear.cuh",
        call=f"head_linear<{kind.name}, {columns}>",
        signature=f"const u8 *w, {INPUTS}, float *y, int heads, int out, int k, int rest",
        threads=128,
        blocks=lambda a: a["heads"] * ceil_div(a["out"], OUTPUTS),
    )


def head_gemm(kind: BlockType) -> Kernel:
    """The same for many rows of x."""
    return Kernel(
        name=f"head_gemm_{kind.name}",
        header="gemm.cuh",
        call=f"head_gemm<{kind.name}>",
        signature=f"const u8 *w, {INPUTS}, float *y, int rows, int heads, int out, int k, int rest",
        threads=256,
        blocks=lambda a: a["heads"] * ceil_div(a["out"], TILE_OUT) * ceil_div(a["rows"], TILE_ROWS),
    )


def embed(kind: BlockType) -> Kernel:
    """y [rows, width] = w[token of each row]."""
    return Kernel(
        name=f"embed_{kind.name}",
        header="embed.cuh",
        call=f"embed<{kind.name}>",
        signature="const u8 *w, const int *tokens, float *y, int rows, int width",
        threads=128,
        blocks=lambda a: ceil_div(a["rows"] * (a["width"] if kind in FLOATS else a["width"] // 32), 128),
    )
