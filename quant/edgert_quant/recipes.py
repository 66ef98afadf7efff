"""Recipes: which tensor of a model gets which block type.

A recipe is a base type and a few exceptions for tensors where more bits pay. The named mixes choose as llama.cpp's
`llama_tensor_get_type` (`llama-quant.cpp`) does, so a name means the same file in both programs; `q4_k` and `q5_k`
are ours: the base type everywhere but in the output matrix. Vectors and routers stay F32 in every recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgert_models.errors import UnsupportedError
from edgert_models.graph import Weight
from edgert_models.spec import ModelSpec

from edgert_quant.blocks import BlockType
from edgert_quant.places import Place, part_of, places

_IQ = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS")
_SMALLER_BLOCKS = {
    **{BlockType[name]: BlockType.IQ4_NL for name in _IQ},
    BlockType.TQ1_0: BlockType.Q4_0,
    BlockType.TQ2_0: BlockType.Q4_0,
    BlockType.Q2_K: BlockType.Q4_0,
    BlockType.Q3_K: BlockType.Q4_0,
    BlockType.Q4_K: BlockType.Q5_0,
    BlockType.Q5_K: BlockType.Q5_1,
    BlockType.Q6_K: BlockType.Q8_0,
}


Choice = Callable[[Place], BlockType | None]
"""What a part gets in a layer; None: the base type."""


def always_base(place: Place) -> None:
    """The base type."""


def always(kind: BlockType) -> Choice:
    """In every layer."""
    return lambda place: kind


def where_more(kind: BlockType) -> Choice:
    """In the first and last eighth of the layers, and every third between."""
    return lambda place: kind if _more_bits(place) else None


def in_first(layers: int, kind: BlockType, rest: BlockType | None = None) -> Choice:
    """In so many first layers, and what the others get."""
    return lambda place: kind if place.index < layers else rest


def in_first_part(divisor: int, kind: BlockType, rest: BlockType | None = None) -> Choice:
    """In such a part of the layers, the first ones, and what the others get."""
    return lambda place: kind if place.index < place.count // divisor else rest


def with_many_queries(kind: BlockType, others: BlockType | None = None) -> Choice:
    """Where a value head serves four query heads or more, so that it is small and counts more."""
    return lambda place: kind if place.many_queries else others


def with_many_queries_or_experts(kind: BlockType, others: BlockType) -> Choice:
    """The same, and in models of four experts or more."""
    return lambda place: kind if place.many_queries or place.spec.experts >= 4 else others


def in_first_eighth_or_more(kind: BlockType) -> Choice:
    """In the first eighth of the layers; in models of eight experts where `where_more` does."""
    return lambda place: (
        kind if place.index < place.count // 8 or (place.spec.experts == 8 and _more_bits(place)) else None
    )


def in_middle(kind: BlockType) -> Choice:
    """In all layers but the first and the last eighth."""
    return lambda place: kind if place.count // 8 <= place.index < 7 * place.count // 8 else None


@dataclass(frozen=True)
class Recipe:
    """A way to store a model.

    `file_type` is GGUF's general.file_type (llama.cpp's `llama_ftype`). `value`, `down` and `attention_output` say what
    the parts of layers get that are worth other bits than the base type; `few_experts_output` is for attention_output
    in models of eight experts, `query_key` and `gate_up` say less for others. `weighed`: what `value` and `down` are
    instead where there is an importance matrix. `experts` is for the routed experts.
    `embedding` is for one that is no output matrix, `output` for the latter. `lowest`: what other mixes raise above
    Q4_K in some models is Q4_K there. `plain`: the base type everywhere but in the output matrix.
    """

    name: str
    base: BlockType
    file_type: int
    description: str
    value: Choice = always_base
    down: Choice = always_base
    attention_output: BlockType | None = None
    few_experts_output: BlockType | None = None
    query_key: BlockType | None = None
    gate_up: Choice = always_base
    experts: BlockType | None = None
    embedding: BlockType | None = None
    output: BlockType = BlockType.Q6_K
    lowest: bool = False
    plain: bool = False
    weighed: Mapping[str, Any] = field(default_factory=dict)

    def with_importance(self) -> Recipe:
        """What it is where an importance matrix says which weights count."""
        return replace(self, **self.weighed)

    @property
    def quantized(self) -> bool:
        """Whether the base type is a block type, not a plain float."""
        return self.base.block_size > 1

    def types(self, weights: Iterable[Weight], spec: ModelSpec) -> dict[str, BlockType]:
        """The block types of a model's weights, of all in its file."""
        weights = list(weights)
        found = places(weights, spec, counting=self.lowest)
        return {weight.name: self._type_of(weight, spec, found.get(weight.name)) for weight in weights}

    def _type_of(self, weight: Weight, spec: ModelSpec, place: Place | None) -> BlockType:
        if weight.role.stays_float:
            return BlockType.F32
        if not self.quantized:
            return self.base
        return _fit(self._wanted(weight, spec, place), weight.shape[-1])

    def _wanted(self, weight: Weight, spec: ModelSpec, place: Place | None) -> BlockType:
        if weight.name == "output.weight" or (spec.tied and weight.name == "token_embd.weight"):
            if self.base is BlockType.Q8_0 or weight.shape[-1] % self.base.block_size:
                return BlockType.Q8_0
            return self.output
        if weight.name == "token_embd.weight":
            return self.embedding or self.base
        if weight.role.stacked and self.experts is not None:
            return self.experts
        return self.base if self.plain else self._of_part(part_of(weight.name), spec, place) or self.base

    def _of_part(self, part: str, spec: ModelSpec, place: Place | None) -> BlockType | None:
        """What a part of a layer gets, if not the base type."""
        few = spec.experts == 8
        if part in ("attn_v", "attn_qkv", "attn_k") and few:  # a few MiB in such models, shared by all experts
            return BlockType.Q4_K if self.lowest else BlockType.Q8_0
        if part in ("attn_v", "attn_qkv") and place:
            chosen = self.value(place) or self.base
            raised = chosen in (BlockType.Q3_K, BlockType.Q4_K) and _is_70b(spec) and not self.lowest
            return BlockType.Q5_K if raised else chosen  # 8 query heads share each value head
        if part in ("attn_q", "attn_k"):
            return self.query_key
        if part.startswith(("ffn_gate", "ffn_up")) and place:
            return self.gate_up(place)
        if part == "attn_output":
            return self.few_experts_output if few else self.attention_output
        return self.down(place) if part.startswith("ffn_down") and place else None


def _more_bits(place: Place) -> bool:
    eighth = place.count // 8
    return place.index < eighth or place.index >= 7 * place.count // 8 or (place.index - eighth) % 3 == 2


def _is_70b(spec: ModelSpec) -> bool:
    own = spec.architecture == "qwen2" or (spec.architecture == "llama" and spec.heads != spec.kv_heads)
    return own and spec.layers == 80


def _fit(wanted: BlockType, row: int) -> BlockType:
    """`wanted`, or the next best type whose blocks divide a row of `row` weights."""
    if row % wanted.block_size == 0:
        return wanted
    smaller = _SMALLER_BLOCKS.get(wanted, wanted)
    return smaller if row % smaller.block_size == 0 else BlockType.F16


_Q2, _Q3, _Q4, _Q5, _Q6 = (BlockType[f"Q{bits}_K"] for bits in range(2, 7))
_IQ3, _IQ3_XXS = BlockType.IQ3_S, BlockType.IQ3_XXS

_RECIPES: Iterable[Recipe] = (
    Recipe("f32", BlockType.F32, 0, "32-bit floats"),
    Recipe("f16", BlockType.F16, 1, "16-bit floats"),
    Recipe("bf16", BlockType.BF16, 32, "bfloat16, as most checkpoints are"),
    Recipe("q8_0", BlockType.Q8_0, 7, "8 bits, nearly lossless"),
    Recipe("mxfp4_moe", BlockType.Q8_0, 38, "experts MXFP4, 4-bit floats; all else 8 bits", experts=BlockType.MXFP4),
    Recipe("q6_k", _Q6, 18, "6 bits"),
    Recipe("q5_k_m", _Q5, 17, "5 bits, about half of v and ffn_down Q6_K", where_more(_Q6), where_more(_Q6)),
    Recipe("q5_k_s", _Q5, 16, "5 bits"),
    Recipe("q5_k", _Q5, 16, "5 bits everywhere but in the output matrix", plain=True),
    Recipe(
        "q4_k_m",
        _Q4,
        15,
        "4 bits, about half of v and ffn_down Q6_K",
        where_more(_Q6),
        where_more(_Q6),
        few_experts_output=_Q5,
    ),
    Recipe(
        "q4_k_s",
        _Q4,
        14,
        "4 bits, v and ffn_down of the first layers Q5_K",
        in_first(4, _Q5),
        in_first_part(8, _Q5),
        few_experts_output=_Q5,
    ),
    Recipe("q4_k", _Q4, 14, "4 bits everywhere but in the output matrix", plain=True),
    Recipe(
        "q4_0",
        BlockType.Q4_0,
        2,
        "4 bits in the oldest layout",
        weighed={"down": in_first_part(8, BlockType.Q4_1)},
    ),
    *(
        Recipe(
            name,
            BlockType[name.upper()],
            file_type,
            f"4 bits out of a table{size}, v where it is small and ffn_down of the first layers Q5_K",
            with_many_queries(_Q5),
            in_first_part(8, _Q5),
            few_experts_output=_Q5,
            weighed={"down": always_base},
        )
        for name, file_type, size in (("iq4_nl", 25, ""), ("iq4_xs", 30, ", slightly smaller"))
    ),
    Recipe("q3_k_l", _Q3, 13, "3 bits, v, ffn_down and attention's output Q5_K", always(_Q5), always(_Q5), _Q5),
    Recipe(
        "q3_k_m",
        _Q3,
        12,
        "3 bits, v, ffn_down and attention's output Q4_K, the first layers' Q5_K",
        in_first(2, _Q5, _Q4),
        in_first_part(16, _Q5, _Q4),
        _Q4,
        few_experts_output=_Q5,
    ),
    Recipe("q3_k_s", _Q3, 11, "3 bits", few_experts_output=_Q5),
    Recipe(
        "q2_k",
        _Q2,
        10,
        "2 bits, v, ffn_down and attention's output Q3_K",
        with_many_queries(_Q4, _Q3),
        always(_Q3),
        _Q3,
        few_experts_output=_Q5,
    ),
    Recipe(
        "q2_k_s", _Q2, 21, "2 bits, ffn_down of the first layers Q4_K", with_many_queries(_Q4), in_first_part(8, _Q4)
    ),
    Recipe(
        "iq3_m",
        _IQ3,
        27,
        "3 bits out of a grid, v, attention's output and ffn_down of the first layers Q4_K",
        always(_Q4),
        in_first_eighth_or_more(_Q4),
        _Q4,
        few_experts_output=_Q5,
    ),
    Recipe(
        "iq3_s",
        _IQ3,
        26,
        "3 bits out of a grid, v where it is small Q4_K",
        with_many_queries(_Q4),
        few_experts_output=_Q5,
    ),
    Recipe(
        "iq3_xs",
        _IQ3,
        22,
        "3 bits out of a grid, q, k and most of gate and up IQ3_XXS, v where it is small Q4_K",
        with_many_queries(_Q4),
        few_experts_output=_Q5,
        query_key=_IQ3_XXS,
        gate_up=in_middle(_IQ3_XXS),
    ),
    Recipe(
        "iq3_xxs",
        _IQ3_XXS,
        23,
        "3 bits out of a small grid, q and k IQ2_S, ffn_down Q3_K, v and attention's output IQ3_S",
        with_many_queries(_Q4, _IQ3),
        in_first_part(8, _Q4, _Q3),
        _IQ3,
        few_experts_output=_Q5,
        query_key=BlockType.IQ2_S,
        embedding=_IQ3,
        output=_Q5,
        weighed={"value": with_many_queries(_Q4), "down": always_base},
    ),
    *(
        Recipe(
            name,
            BlockType[base.upper()],
            file_type,
            f"{bits} out of a grid, v, {also}ffn_down of the first layers {better.name}",
            with_many_queries_or_experts(_Q4, better),
            in_first_part(8, better),
            attention_output,
            few_experts_output=_Q5,
            embedding=better,
            output=_Q5,
            lowest=True,
        )
        for name, base, file_type, bits, better, attention_output, also in (
            ("iq2_m", "iq2_s", 29, "2.6 bits", _IQ3, _IQ3, "attention's output and "),
            ("iq2_s", "iq2_xs", 28, "2.3 bits", _IQ3, _IQ3, "attention's output and "),
            ("iq2_xs", "iq2_xs", 20, "2.3 bits", _Q2, None, ""),
            ("iq2_xxs", "iq2_xxs", 19, "2.1 bits", _Q2, None, ""),
            ("iq1_m", "iq1_m", 31, "1.8 bits", _Q2, BlockType.IQ2_XXS, ""),
            ("iq1_s", "iq1_s", 24, "1.6 bits", _Q2, BlockType.IQ2_XXS, ""),
        )
    ),
    *(
        Recipe(
            name, BlockType[name.upper()], file_type, f"{bits} for weights that are -d, 0 or d already", embedding=_Q4
        )
        for name, file_type, bits in (("tq2_0", 37, "2.1 bits"), ("tq1_0", 36, "1.7 bits"))
    ),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}
DEFAULT = "q4_k_m"
NATIVE = Recipe("native", BlockType.BF16, 32, "what the source has, bit by bit where GGUF has such a type")
"""Not a mix: the source says which type each tensor has (`Source.native_types`), BF16 is for what has none."""

_FILE_TYPES = {recipe.base: recipe.file_type for recipe in RECIPES.values()} | {
    BlockType.Q4_1: 3,
    BlockType.Q5_0: 8,
    BlockType.Q5_1: 9,
    BlockType.MXFP4: 38,
}


def file_type_of(largest: BlockType) -> int:
    """`general.file_type` of a file most of whose bytes are of one type (llama.cpp's `llama_ftype`), 0 if unknown."""
    return _FILE_TYPES.get(largest, 0)


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`, in upper or lower case; UnsupportedError lists what there is."""
    known = {**RECIPES, NATIVE.name: NATIVE}
    try:
        return known[name.strip().lower()]
    except (KeyError, AttributeError):
        raise UnsupportedError(f"type {name!r} is not supported; supported: {', '.join(known)}") from None
