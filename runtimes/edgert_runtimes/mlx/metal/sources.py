"""The text of the Metal kernels: one body for each way to multiply, one decoder for each type, tables made from ours.

A kernel is what `mx.fast.metal_kernel` takes: a body, and a header with the functions that it calls. The bodies know
nothing of types: every header has `decode(block, part, w)`, which gives 32 of the 256 weights of a block, and
`BLOCK_BYTES`. All of it is ASCII, the only text that MLX hands to Metal's compiler, and C++14, Metal's dialect.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from edgert_quant.blocks import BlockType
from edgert_quant.blocks.grids import grid_levels, grid_points
from edgert_quant.blocks.unpack32 import IQ4_VALUES

PART = 32
"""Weights that `decode` gives."""

GRID_TYPES = (
    BlockType.IQ3_S,
    BlockType.IQ3_XXS,
    BlockType.IQ2_S,
    BlockType.IQ2_XS,
    BlockType.IQ2_XXS,
    BlockType.IQ1_S,
    BlockType.IQ1_M,
)
RAW_TYPES = (
    BlockType.Q6_K,
    BlockType.Q3_K,
    BlockType.Q2_K,
    BlockType.IQ4_XS,
    BlockType.TQ1_0,
    BlockType.TQ2_0,
    *GRID_TYPES,
)
"""The types that have kernels: those that no packed form of MLX holds exactly. All have blocks of 256 weights."""

INPUTS = {
    "gemv": ("x", "blocks"),
    "expert_gemv": ("x", "blocks", "ids"),
    "expert_gemm": ("x", "blocks", "ids"),
    "rows": ("blocks", "ids"),
}
"""The kernels, and the arrays that each reads. All write one array, y."""


@dataclass(frozen=True)
class Kernel:
    """A kernel for one type; the fields are arguments of `mx.fast.metal_kernel`."""

    name: str
    inputs: tuple[str, ...]
    header: str
    source: str


@cache
def kernel(body: str, kind: BlockType) -> Kernel:
    """The kernel `body` (of `INPUTS`) for a type of `RAW_TYPES`."""
    return Kernel(f"edgert_{body}_{kind.name.lower()}", INPUTS[body], _header(kind), read(f"{body}.metal"))


@cache
def _header(kind: BlockType) -> str:
    pieces = [f"constant uint BLOCK_BYTES = {kind.block_bytes};\n", read("bytes.metal")]
    if kind is BlockType.IQ4_XS:
        pieces.append(_table("int8_t", "values", [int(value) for value in IQ4_VALUES]))
    if kind in GRID_TYPES:
        pieces += [_table("uint", "grid", _grid_words(kind)), read("points.metal")]
    return "\n".join([*pieces, read(f"types/{kind.name.lower()}.metal"), read("product.metal")])


def _grid_words(kind: BlockType) -> list[int]:
    """The coordinates of all points as signed bytes, four to a little-endian word."""
    coordinates = [level.to_bytes(1, "little", signed=True) for level in grid_levels(kind)]
    data = b"".join(coordinates[level] for level in grid_points(kind).ravel())
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]


def _table(number: str, name: str, entries: list[int]) -> str:
    return f"constant {number} {name}[{len(entries)}] = {{{', '.join(map(str, entries))}}};\n"


def read(name: str) -> str:
    """A file of `kernels`."""
    return files(__package__).joinpath("kernels", name).read_text("utf-8")
