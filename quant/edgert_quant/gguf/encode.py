"""Metadata and tensor infos as bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from edgert_quant.blocks.types import BlockType
from edgert_quant.gguf import layout
from edgert_quant.gguf.values import DTYPES, FORMATS, ValueType, fits, infer_item_type, infer_type

_U64 = struct.Struct("<Q")


def encode_pair(key: str, value: object, value_type: ValueType | None) -> bytes:
    """A key, its type and its value. Raises `ValueError` for what GGUF, or our own reader, does not take."""
    name = encode_string(key)
    if not 8 < len(name) <= 8 + layout.MAX_KEY_BYTES:
        raise ValueError(f"a key has 1 to {layout.MAX_KEY_BYTES} bytes, not {len(name) - 8}")
    if isinstance(value, bytes | bytearray):
        value = np.frombuffer(value, np.uint8)
    if isinstance(value, np.ndarray) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return name + _encode_array(value, value_type)
    if value_type is None:
        value_type = infer_type(value)
    _check(value, value_type)
    head = name + int(value_type).to_bytes(4, "little")
    if isinstance(value, str):
        return head + encode_string(value)
    return head + FORMATS[value_type].pack(value.item() if isinstance(value, np.generic) else value)


def encode_string(text: str) -> bytes:
    """Length and UTF-8. Raises `ValueError` for lone surrogates and for what is too long."""
    data = text.encode("utf-8")
    if len(data) > layout.MAX_STRING_BYTES:
        raise ValueError(f"a string of {len(data)} bytes is above the limit of {layout.MAX_STRING_BYTES}")
    return _U64.pack(len(data)) + data


def encode_tensor_info(name: str, block_type: BlockType, shape: Sequence[int], offset: int) -> bytes:
    """A tensor info; `shape` is outermost first (the file has it reversed), `offset` counts from the data's start."""
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return encode_string(name) + dimensions + struct.pack("<IQ", int(block_type), offset)


def _encode_array(values: Sequence[object] | np.ndarray, item_type: ValueType | None) -> bytes:
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ValueError(f"an array of {values.ndim} dimensions, where GGUF has only one")
    if item_type is None:
        item_type = infer_item_type(values)
    limit = layout.MAX_STRING_ITEMS if item_type is ValueType.STRING else layout.MAX_ARRAY_ITEMS
    if len(values) > limit:
        raise ValueError(f"an array of {len(values)} items is above the limit of {limit}")
    head = struct.pack("<IIQ", ValueType.ARRAY, item_type, len(values))
    if isinstance(values, np.ndarray) and item_type in DTYPES and values.dtype == DTYPES[item_type]:
        return head + values.astype(DTYPES[item_type], copy=False).tobytes()
    for value in values:
        _check(value, item_type)
    if item_type is ValueType.STRING:
        return head + b"".join(encode_string(str(value)) for value in values)
    return head + np.array(values, DTYPES[item_type]).tobytes()


def _check(value: object, value_type: ValueType) -> None:
    if value_type is ValueType.ARRAY:
        raise ValueError("for an array, give the type of its items; arrays of arrays are not written")
    if not fits(value, value_type):
        raise ValueError(f"{value!r:.60} is no {value_type.name}")
