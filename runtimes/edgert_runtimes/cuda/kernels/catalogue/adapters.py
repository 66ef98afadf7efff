"""Adapters of low rank. `adapters` int32 [rows of the batch]; `pick` may be null."""

from __future__ import annotations

from edgert_runtimes.cuda.kernels.kernel import Kernel, ceil_div


def low_rank_inward() -> Kernel:
    """inner [rows, rank] = x [rows, k] aᵀ, a being [rank, k] of each row's adapter."""
    return Kernel(
        name="low_rank_inward",
        header="adapters.cuh",
        call="low_rank_inward",
        signature="const float *x, const float *a, const int *adapters, const int *pick, float *inner, int rows, "
        "int rank, int k",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"] * a["rank"], 8),
    )


def low_rank_outward() -> Kernel:
    """out [rows, width] = y + inner b, b being [rank, width] of each row's adapter; out may be y."""
    return Kernel(
        name="low_rank_outward",
        header="adapters.cuh",
        call="low_rank_outward",
        signature="const float *inner, const float *b, const int *adapters, const int *pick, const float *y, "
        "float *out, int rows, int rank, int width",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"] * a["width"], 256),
    )
