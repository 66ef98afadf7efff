"""The grids of the codebook types (IQ1, IQ2, IQ3): the points that an index stands for, without signs and scales.

They are gguf-py's (`grid_hex` and `grid_map` of gguf/quants.py), which has them from ggml's `ggml-common.h`.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from edgert_quant.blocks.types import BlockType


@cache
def grid_levels(kind: BlockType) -> tuple[int, ...]:
    """The values that coordinates of a type's points have, from the smallest."""
    return tuple(sorted(int(value) for value in _owner(kind).grid_map))


@cache
def grid_points(kind: BlockType) -> NDArray[np.uint8]:
    """Every point of a type's grid, [points, 4 or 8]: the number of each coordinate's level in `grid_levels`."""
    owner = _owner(kind)
    values = np.asarray(owner.grid).reshape(owner.grid_shape)
    return np.searchsorted(grid_levels(kind), values).astype(np.uint8)


def _owner(kind: BlockType):  # type: ignore[no-untyped-def]  # gguf-py has no types
    from gguf import quants

    owner = getattr(quants, kind.name)
    owner.init_grid()
    return owner
