"""Getters check type, count and range, and say which value is wrong."""

import struct

import numpy as np
import pytest
from edgert_models.errors import FileFormatError
from edgert_quant.gguf import GgufFile

from tests.support.hostile import (
    BOOL,
    F32,
    F64,
    I8,
    I32,
    STRING,
    U8,
    U16,
    U32,
    U64,
    array_pair,
    gguf,
    pair,
    string,
    text_pair,
    u32,
    u64,
)

PAIRS = [
    text_pair("text", "héllo"),
    pair("small", I8, b"\xff"),
    pair("integer", U32, u32(40)),
    pair("huge", U64, u64((1 << 64) - 1)),
    pair("float", F32, struct.pack("<f", 0.25)),
    pair("nan", F32, struct.pack("<f", float("nan"))),
    pair("infinite", F64, struct.pack("<d", float("-inf"))),
    pair("yes", BOOL, b"\1"),
    array_pair("strings", STRING, 2, string("a") + string("b")),
    array_pair("integers", I32, 3, struct.pack("<3i", -1, 0, 9)),
    array_pair("shorts", U16, 2, struct.pack("<2H", 1, 65535)),
    array_pair("longs", U64, 2, u64(1) + u64(1 << 63)),
    array_pair("floats", F32, 2, struct.pack("<2f", 1.5, -2)),
    array_pair("nans", F32, 3, struct.pack("<3f", 1, 2, float("nan"))),
    array_pair("bytes", U8, 2, b"\x00\xff"),
    array_pair("flags", BOOL, 2, b"\0\1"),
    array_pair("bits", I32, 3, struct.pack("<3i", 1, 0, 1)),
]


@pytest.fixture
def metadata(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(PAIRS))
    with GgufFile.open(path) as file:
        yield file.metadata


def test_values(metadata):
    assert metadata.string("text") == "héllo"
    assert metadata.integer("small") == -1
    assert metadata.integer("huge") == (1 << 64) - 1
    assert metadata.number("integer") == 40.0
    assert metadata.number("float") == 0.25
    assert metadata.boolean("yes") is True
    assert metadata.booleans("flags", count=2) == [False, True]
    assert metadata.booleans("bits", count=3) == [True, False, True]
    assert metadata.strings("strings", count=2) == ["a", "b"]
    integers = metadata.integers("integers", minimum=-1, maximum=9)
    assert integers.dtype == np.int64
    assert integers.tolist() == [-1, 0, 9]
    assert metadata.integers("shorts").tolist() == [1, 65535]
    assert metadata.integers("bytes").tolist() == metadata.numbers("bytes").tolist() == [0, 255]
    numbers = metadata.numbers("floats", count=2)
    assert numbers.dtype == np.float64
    assert numbers.tolist() == [1.5, -2.0]
    assert metadata.numbers("integers").tolist() == [-1, 0, 9]
    assert metadata["flags"].tolist() == [False, True]


def test_it_is_a_mapping(metadata):
    assert len(metadata) == len(PAIRS)
    assert list(metadata)[:2] == ["text", "small"]
    assert metadata.get("none") is None
    assert "text" in metadata
    assert metadata["strings"] is metadata["strings"]  # decoded once
    with pytest.raises(KeyError):
        metadata["none"]


def test_a_single_integer_stands_for_one_per_layer(metadata):
    assert metadata.integers("integer", count=4).tolist() == [40] * 4
    assert metadata.integers("integers", count=3).tolist() == [-1, 0, 9]


def test_defaults_are_returned_as_they_are(metadata):
    default = object()
    for getter in ("string", "integer", "number", "boolean", "booleans", "strings", "integers", "numbers"):
        assert getattr(metadata, getter)("none", default) is default
        assert getattr(metadata, getter)("none", None) is None


@pytest.mark.parametrize(
    "getter", ["string", "integer", "number", "boolean", "booleans", "strings", "integers", "numbers"]
)
def test_missing_keys_are_named(metadata, getter):
    with pytest.raises(FileFormatError) as caught:
        getattr(metadata, getter)("llama.block_count")
    assert str(caught.value) == f"{metadata.path}, llama.block_count: is missing from the metadata"


@pytest.mark.parametrize(
    ("getter", "key", "options", "reason"),
    [
        ("string", "integer", {}, "is UINT32, not a string"),
        ("string", "strings", {}, "is an array of STRING, not a string"),
        ("integer", "float", {}, "is FLOAT32, not an integer"),
        ("integer", "yes", {}, "is BOOL, not an integer"),
        ("integer", "text", {}, "is STRING, not an integer"),
        ("integer", "integers", {}, "is an array of INT32, not an integer"),
        ("integer", "integer", {"minimum": 41}, "is 40, below 41"),
        ("integer", "integer", {"maximum": 39}, "is 40, above 39"),
        ("number", "text", {}, "is STRING, not a number"),
        ("number", "yes", {}, "is BOOL, not a number"),
        ("number", "nan", {}, "is nan, not a finite number"),
        ("number", "infinite", {}, "is -inf, not a finite number"),
        ("number", "float", {"minimum": 0.5}, "is 0.25, below 0.5"),
        ("boolean", "integer", {}, "is UINT32, not a boolean"),
        ("boolean", "flags", {}, "is an array of BOOL, not a boolean"),
        ("booleans", "yes", {}, "is BOOL, not an array of booleans"),
        ("booleans", "integers", {}, "is an array of INT32, not an array of booleans"),
        ("booleans", "flags", {"count": 3}, "has 2 items, not 3"),
        ("strings", "text", {}, "is STRING, not an array of strings"),
        ("strings", "integers", {}, "is an array of INT32, not an array of strings"),
        ("strings", "strings", {"count": 3}, "has 2 items, not 3"),
        ("integers", "integer", {}, "is UINT32, not an array of integers"),
        ("integers", "yes", {"count": 2}, "is BOOL, not an array of integers"),
        ("integers", "floats", {}, "is an array of FLOAT32, not an array of integers"),
        ("integers", "strings", {}, "is an array of STRING, not an array of integers"),
        ("integers", "integers", {"count": 2}, "has 3 items, not 2"),
        ("integers", "integers", {"minimum": 0}, "is -1, below 0"),
        ("integers", "integers", {"maximum": 8}, "is 9, above 8"),
        ("integers", "longs", {}, f"is {1 << 63}, above {(1 << 63) - 1}"),
        ("numbers", "flags", {}, "is an array of BOOL, not an array of numbers"),
        ("numbers", "float", {}, "is FLOAT32, not an array of numbers"),
        ("numbers", "nans", {}, "item 2 is not a finite number"),
        ("numbers", "floats", {"count": 1}, "has 2 items, not 1"),
    ],
)
def test_wrong_values_are_refused(metadata, getter, key, options, reason):
    with pytest.raises(FileFormatError) as caught:
        getattr(metadata, getter)(key, **options)
    error = caught.value
    assert (error.field, error.reason) == (key, reason)
    assert error.path == str(metadata.path)
    data = metadata.path.read_bytes()
    assert data[error.offset + 8 :].startswith(key.encode())  # the offset is that of the key
