"""Tables of the block types as CUDA source: levels and grids come from `edgert_quant.blocks`, their one owner."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
from edgert_quant.blocks import BlockType
from edgert_quant.blocks.grids import grid_levels, grid_points
from edgert_quant.blocks.unpack32 import E2M1_VALUES, IQ4_VALUES

_GRIDS = (BlockType.IQ2_XXS, BlockType.IQ2_XS, BlockType.IQ2_S, BlockType.IQ3_XXS, BlockType.IQ3_S, BlockType.IQ1_S)


@cache
def tables() -> str:
    """`tables.cuh`: IQ4_LEVELS and E2M1_LEVELS (16 signed bytes in four words), and GRID_type, points in words.

    The points of IQ1 are stored as 8 (g + 1), so that a shift of an eighth is a whole number too.
    """
    parts = ["#pragma once\n"]
    for name, levels in (("IQ4", IQ4_VALUES), ("E2M1", E2M1_VALUES)):
        parts.append(_array(f"{name}_LEVELS", levels.astype(np.int8).view(np.uint32)))
    for kind in _GRIDS:
        values = np.array(grid_levels(kind))[grid_points(kind)]
        if kind is BlockType.IQ1_S:
            values = 8 * (values + 1)
        parts.append(_array(f"GRID_{kind.name}", np.ascontiguousarray(values.astype(np.uint8)).view(np.uint32).ravel()))
    return "".join(parts)


def _array(name: str, words: Iterable[int]) -> str:
    numbers = [f"{int(word):#010x}u" for word in words]
    lines = [", ".join(numbers[i : i + 10]) for i in range(0, len(numbers), 10)]
    body = ",\n    ".join(lines)
    return f"static __device__ const unsigned {name}[{len(numbers)}] = {{\n    {body}}};\n"
