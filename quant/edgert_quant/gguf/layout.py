"""Limits of a GGUF file, and every size that is computed from one: Python integers, so nothing wraps.

The record of published holes in GGUF readers is largely one mistake repeated: a size computed from the file is not
checked against the file, or wraps before it is (CVE-2024-21802, CVE-2025-53630, CVE-2026-27940, CVE-2026-33298). So
all such arithmetic is here, and all of it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgert_quant.blocks.types import BlockType

MAX_KEY_BYTES = 65_535
MAX_STRING_BYTES = 64 << 20
MAX_ARRAY_ITEMS = 1 << 24
MAX_STRING_ITEMS = 1 << 22
"""Strings in all arrays of a file together. They are walked one by one; the largest vocabularies have below 2^20."""
MAX_HEADER_BYTES = 512 << 20
MAX_PAIRS = 65_536
MAX_TENSORS = 65_536
MAX_NAME_BYTES = 64
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20
MAX_SHARDS = 1_024
MAX_ELEMENTS = (1 << 63) - 1
DEFAULT_ALIGNMENT = 32

SMALLEST_PAIR = 8 + 1 + 4 + 1
"""Bytes of a key of one character, a type and a value of one byte."""
SMALLEST_TENSOR = 8 + 4 + 8 + 4 + 8
"""Bytes of an empty name, a dimension count, one dimension, a type and an offset."""


def align_up(value: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is at least `value`."""
    return -(-value // alignment) * alignment


def alignment_problem(alignment: int) -> str | None:
    """What is wrong with an alignment, or None."""
    if alignment <= 0 or alignment & (alignment - 1):
        return f"alignment {alignment} is no power of two"
    if alignment > MAX_ALIGNMENT:
        return f"alignment {alignment} is above the limit of {MAX_ALIGNMENT}"
    return None


def shape_problem(shape: Sequence[int], block_type: BlockType) -> str | None:
    """What is wrong with a shape (outermost first) for this type, or None."""
    if not 1 <= len(shape) <= MAX_DIMENSIONS:
        return f"has {len(shape)} dimensions, not 1 to {MAX_DIMENSIONS}"
    elements = 1
    for size in reversed(shape):
        if size < 1:
            return f"has a dimension of {size}"
        elements *= size
        if elements > MAX_ELEMENTS:
            return f"has more than 2^63 elements: dimensions {list(shape)}"
    if shape[-1] % block_type.block_size:
        return (
            f"has rows of {shape[-1]} weights, no multiple of the {block_type.block_size} in a {block_type.name} block"
        )
    return None


def row_bytes(shape: Sequence[int], block_type: BlockType) -> int:
    """Bytes of one row (the last dimension) of a shape that `shape_problem` has passed."""
    return int(shape[-1]) // block_type.block_size * block_type.block_bytes


def row_count(shape: Sequence[int]) -> int:
    """Rows of a tensor: the product of all dimensions but the last."""
    rows = 1
    for size in shape[:-1]:
        rows *= int(size)
    return rows


def tensor_bytes(shape: Sequence[int], block_type: BlockType) -> int:
    """Bytes of a tensor whose shape `shape_problem` has passed."""
    return row_count(shape) * row_bytes(shape, block_type)
