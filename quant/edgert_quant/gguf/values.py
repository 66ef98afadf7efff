"""The value types of GGUF metadata, and how a Python value finds its type.

Source: the GGUF specification, `docs/gguf.md` in ggml, `enum gguf_metadata_value_type`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from enum import IntEnum

import numpy as np


class ValueType(IntEnum):
    """The type of a metadata value; the number is its id in files."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


FORMATS: dict[ValueType, struct.Struct] = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.BOOL: struct.Struct("<?"),
    ValueType.UINT64: struct.Struct("<Q"),
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
}
"""How a single number or boolean is stored."""

DTYPES: dict[ValueType, np.dtype[np.generic]] = {
    ValueType.UINT8: np.dtype("u1"),
    ValueType.INT8: np.dtype("i1"),
    ValueType.UINT16: np.dtype("<u2"),
    ValueType.INT16: np.dtype("<i2"),
    ValueType.UINT32: np.dtype("<u4"),
    ValueType.INT32: np.dtype("<i4"),
    ValueType.FLOAT32: np.dtype("<f4"),
    ValueType.BOOL: np.dtype("?"),
    ValueType.UINT64: np.dtype("<u8"),
    ValueType.INT64: np.dtype("<i8"),
    ValueType.FLOAT64: np.dtype("<f8"),
}
"""How an array of numbers or booleans is stored."""

INTEGER_TYPES = frozenset(
    {
        ValueType.UINT8,
        ValueType.INT8,
        ValueType.UINT16,
        ValueType.INT16,
        ValueType.UINT32,
        ValueType.INT32,
        ValueType.UINT64,
        ValueType.INT64,
    }
)
FLOAT_TYPES = frozenset({ValueType.FLOAT32, ValueType.FLOAT64})

_TYPE_OF_DTYPE = {dtype.str.lstrip("<>|="): value_type for value_type, dtype in DTYPES.items()}


def infer_type(value: object) -> ValueType:
    """The type for a single value that comes without one.

    Integers take UINT32 where they fit, then INT32, UINT64, INT64; floats FLOAT32, as in the files of llama.cpp. Raises
    `ValueError` for anything GGUF cannot hold.
    """
    if isinstance(value, bool | np.bool_):
        return ValueType.BOOL
    if isinstance(value, np.generic) and value.dtype.str.lstrip("<>|=") in _TYPE_OF_DTYPE:
        return _TYPE_OF_DTYPE[value.dtype.str.lstrip("<>|=")]
    if isinstance(value, int):
        for value_type in (ValueType.UINT32, ValueType.INT32, ValueType.UINT64, ValueType.INT64):
            if fits(value, value_type):
                return value_type
        raise ValueError(f"{value} does not fit 64 bits")
    if isinstance(value, float):
        return ValueType.FLOAT32
    if isinstance(value, str):
        return ValueType.STRING
    raise ValueError(f"GGUF has no type for a value of {type(value).__name__}")


def infer_item_type(values: Sequence[object] | np.ndarray) -> ValueType:
    """The item type for an array that comes without one: integers take INT32 where they fit, else INT64 or UINT64."""
    if isinstance(values, np.ndarray):
        try:
            return _TYPE_OF_DTYPE[values.dtype.str.lstrip("<>|=")]
        except KeyError:
            raise ValueError(f"GGUF has no type for an array of {values.dtype}") from None
    if not len(values):
        raise ValueError("an empty array needs an element type")
    kinds = {ValueType.INT64 if infer_type(value) in INTEGER_TYPES else infer_type(value) for value in values}
    if len(kinds) > 1:
        raise ValueError(f"an array of mixed types: {sorted(kind.name for kind in kinds)}")
    kind = kinds.pop()
    if kind is ValueType.INT64:
        for value_type in (ValueType.INT32, ValueType.INT64, ValueType.UINT64):
            if all(fits(value, value_type) for value in values):
                return value_type
        raise ValueError("an array of integers that fit neither INT64 nor UINT64")
    return kind


def fits(value: object, value_type: ValueType) -> bool:
    """Whether a single value can be stored as this type without changing what it means."""
    if value_type is ValueType.STRING:
        return isinstance(value, str)
    if value_type is ValueType.BOOL:
        return isinstance(value, bool | np.bool_)
    if value_type in INTEGER_TYPES:
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            return False
        bits, signed = 8 * DTYPES[value_type].itemsize, DTYPES[value_type].kind == "i"
        return 0 <= int(value) + (1 << bits - 1 if signed else 0) < 1 << bits
    if value_type in FLOAT_TYPES:
        if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
            return False
        largest = np.finfo(np.float32 if value_type is ValueType.FLOAT32 else np.float64).max
        return not math.isfinite(float(value)) or abs(float(value)) <= float(largest)
    return False
