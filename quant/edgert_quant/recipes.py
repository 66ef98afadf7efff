"""Recipes: which tensor of a model gets which block type.

A recipe is a base type and a few exceptions for tensors where more bits pay. The named mixes choose as llama.cpp's
`llama_tensor_get_type` (`llama-quant.cpp`) does, so a name means the same file in both programs; `q4_k` and `q5_k`
are ours: the base type everywhere but in the output matrix. Vectors and routers stay F32 in every recipe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgert_models.errors import UnsupportedError
from edgert_models.graph import Role, Weight
from edgert_models.spec import ModelSpec

from edgert_quant.blocks import BlockType

_LAYER = re.compile(r"blk\.(\d+)\.")
_SMALLER_BLOCKS = {
    BlockType.Q4_K: BlockType.Q5_0,
    BlockType.Q5_K: BlockType.Q5_1,
    BlockType.Q6_K: BlockType.Q8_0,
}


@dataclass(frozen=True)
class Recipe:
    """A way to store a model.

    `file_type` is GGUF's general.file_type (llama.cpp's `llama_ftype`). `more` names the type for value projections
    and ffn_down in the layers of `_more_bits`; `first` the type for the value projections of the first four layers and
    for ffn_down in the first eighth.
    """

    name: str
    base: BlockType
    file_type: int
    description: str
    more: BlockType | None = None
    first: BlockType | None = None
    few_experts_output: BlockType | None = None
    plain: bool = False

    @property
    def quantized(self) -> bool:
        """Whether the base type is a block type, not a plain float."""
        return self.base.block_size > 1

    def choose(self, weight: Weight, spec: ModelSpec) -> BlockType:
        """The block type for one weight of a model."""
        if weight.role in (Role.VECTOR, Role.ROUTER):
            return BlockType.F32
        if not self.quantized:
            return self.base
        return _fit(self._wanted(weight, spec), weight.shape[-1])

    def _wanted(self, weight: Weight, spec: ModelSpec) -> BlockType:
        if weight.name == "output.weight" or (spec.tied and weight.role is Role.EMBEDDING):
            if self.base is BlockType.Q8_0 or weight.shape[-1] % self.base.block_size:
                return BlockType.Q8_0
            return BlockType.Q6_K
        match = _LAYER.match(weight.name)
        if self.plain or match is None:
            return self.base
        layer, part = int(match[1]), weight.name[match.end() :].partition(".")[0]
        if part == "attn_v":
            return self._value_projection(layer, spec)
        if part == "attn_k" and spec.experts == 8:
            return BlockType.Q8_0
        if part == "attn_output" and spec.experts == 8:
            return self.few_experts_output or self.base
        if part in ("ffn_down", "ffn_down_exps"):
            if self.more and _more_bits(layer, spec.layers):
                return self.more
            if self.first and layer < spec.layers // 8:
                return self.first
        return self.base

    def _value_projection(self, layer: int, spec: ModelSpec) -> BlockType:
        if spec.experts == 8:  # a few MiB in such models, shared by all experts
            return BlockType.Q8_0
        chosen = self.base
        if self.more and _more_bits(layer, spec.layers):
            chosen = self.more
        elif self.first and layer < 4:
            chosen = self.first
        if chosen is BlockType.Q4_K and _is_llama_70b(spec):
            return BlockType.Q5_K  # 8 query heads share each value head
        return chosen


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _is_llama_70b(spec: ModelSpec) -> bool:
    return spec.architecture == "llama" and spec.layers == 80 and spec.heads != spec.kv_heads


def _fit(wanted: BlockType, row: int) -> BlockType:
    """`wanted`, or the next best type whose blocks divide a row of `row` weights."""
    if row % wanted.block_size == 0:
        return wanted
    smaller = _SMALLER_BLOCKS.get(wanted, wanted)
    return smaller if row % smaller.block_size == 0 else BlockType.F16


_RECIPES: Iterable[Recipe] = (
    Recipe("f32", BlockType.F32, 0, "32-bit floats"),
    Recipe("f16", BlockType.F16, 1, "16-bit floats"),
    Recipe("bf16", BlockType.BF16, 32, "bfloat16, as most checkpoints are"),
    Recipe("q8_0", BlockType.Q8_0, 7, "8 bits, nearly lossless"),
    Recipe("q6_k", BlockType.Q6_K, 18, "6 bits"),
    Recipe("q5_k_m", BlockType.Q5_K, 17, "5 bits, about half of v and ffn_down Q6_K", more=BlockType.Q6_K),
    Recipe("q5_k_s", BlockType.Q5_K, 16, "5 bits"),
    Recipe("q5_k", BlockType.Q5_K, 16, "5 bits everywhere but in the output matrix", plain=True),
    Recipe(
        "q4_k_m",
        BlockType.Q4_K,
        15,
        "4 bits, about half of v and ffn_down Q6_K",
        more=BlockType.Q6_K,
        few_experts_output=BlockType.Q5_K,
    ),
    Recipe(
        "q4_k_s",
        BlockType.Q4_K,
        14,
        "4 bits, v and ffn_down of the first layers Q5_K",
        first=BlockType.Q5_K,
        few_experts_output=BlockType.Q5_K,
    ),
    Recipe("q4_k", BlockType.Q4_K, 14, "4 bits everywhere but in the output matrix", plain=True),
    Recipe("q4_0", BlockType.Q4_0, 2, "4 bits in the oldest layout"),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`, in upper or lower case; UnsupportedError lists what there is."""
    try:
        return RECIPES[name.strip().lower()]
    except KeyError:
        raise UnsupportedError(f"type {name!r} is not supported; supported: {', '.join(RECIPES)}") from None
