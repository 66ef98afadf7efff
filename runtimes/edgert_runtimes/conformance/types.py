"""The types of weights that cases go through, and one row or many."""

from __future__ import annotations

from collections.abc import Callable

from edgert_models.graph import Role, Weight
from edgert_quant.blocks import BlockType

from edgert_runtimes.conformance.cases import FLOAT, QUANTIZED

FLOATS = (BlockType.F32, BlockType.F16, BlockType.BF16)
COMMON = (BlockType.Q8_0, BlockType.Q4_0, BlockType.Q4_K, BlockType.Q5_K, BlockType.Q6_K)
"""Quantized types that models mostly have: tried in every shape."""
OTHERS = (
    BlockType.Q4_1,
    BlockType.Q5_0,
    BlockType.Q5_1,
    BlockType.Q2_K,
    BlockType.Q3_K,
    BlockType.IQ4_NL,
    BlockType.IQ4_XS,
    BlockType.IQ3_S,
    BlockType.IQ3_XXS,
    BlockType.IQ2_S,
    BlockType.IQ2_XS,
    BlockType.IQ2_XXS,
    BlockType.IQ1_S,
    BlockType.IQ1_M,
    BlockType.MXFP4,
    BlockType.TQ1_0,
    BlockType.TQ2_0,
)
"""All other types that edgert writes."""
ROWS = (1, 2, 7, 33)


def only(role: Role, kind: BlockType) -> Callable[[Weight], BlockType]:
    """Weights of one role in a type, all others in F32."""
    return lambda weight: kind if weight.role is role else BlockType.F32


def bound_of(kind: BlockType) -> float:
    """The bound of an op with matrices of a type."""
    return FLOAT if kind in FLOATS else QUANTIZED
