"""How tiles become blocks of the codebook types: see `grid_search`, and `kernels` for what recipes are."""

from __future__ import annotations

from collections.abc import Callable

from edgert_quant.blocks import grid_pack
from edgert_quant.blocks.grid_search import Codebook, Span, search
from edgert_quant.blocks.lanes import Lanes, Value
from edgert_quant.blocks.search import Tile
from edgert_quant.blocks.types import BlockType


def codebook(
    book: Codebook, put: Callable[[grid_pack.Groups], None], span: Span, tries: int
) -> Callable[[Tile, list[Value]], list[Lanes]]:
    """y = d · factor · odd · point."""

    def recipe(tile: Tile, starts: list[Value]) -> list[Lanes]:
        finder, scales = search(tile, book, span, tries)
        put(grid_pack.Groups(finder, scales, starts))
        return [scales.d]

    return recipe


IQ3_S = Codebook(BlockType.IQ3_S, 32, 1.0, 31, "all")
IQ3_XXS = Codebook(BlockType.IQ3_XXS, 32, 1 / 4, 31, "even")
IQ2_S = Codebook(BlockType.IQ2_S, 16, 1 / 8, 31, "all")
IQ2_XS = Codebook(BlockType.IQ2_XS, 16, 1 / 8, 31, "even")
IQ2_XXS = Codebook(BlockType.IQ2_XXS, 32, 1 / 8, 31, "even")
IQ1_S = Codebook(BlockType.IQ1_S, 32, 1.0, 15, "shift", one_shift=True)
IQ1_M = Codebook(BlockType.IQ1_M, 16, 1.0, 15, "shift")
