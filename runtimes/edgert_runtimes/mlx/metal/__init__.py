"""Exact products with the types that no packed form of MLX holds exactly: Metal kernels on the file's own blocks."""

from edgert_runtimes.mlx.metal.matmul import raw_gather_matmul, raw_matmul, raw_rows
from edgert_runtimes.mlx.metal.sources import RAW_TYPES

__all__ = ["RAW_TYPES", "raw_gather_matmul", "raw_matmul", "raw_rows"]
