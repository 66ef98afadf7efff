"""Safetensors headers made to break readers: each refused with file, offset and field, in bounded time and memory."""

import json
import sys

import pytest
from edgert_models.errors import FileFormatError, UnsupportedError
from edgert_quant.checkpoint import Checkpoint

from tests.support.budget import open_limited
from tests.support.hostile import safetensors, u64

HUGE = (1 << 64) - 1


def entry(dtype="F32", shape=(1,), begin=0, end=4, **extra):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **extra}


def file_of(data=bytes(4), **tensors):
    return safetensors(tensors, data)


CASES = {
    "empty": (b"", "header length", "has 0 bytes, fewer than a header"),
    "seven bytes": (bytes(7), "header length", "has 7 bytes, fewer than a header"),
    "length 0": (bytes(20), "header length", "is 0, not 2 to 12"),
    "length 2^64 - 1": (
        safetensors({}, length=HUGE),
        "header length",
        f"is {HUGE}, not 2 to 2 (the file has 10 bytes)",
    ),
    "length of the whole file": (safetensors({}, length=10), "header length", "is 10, not 2 to 2"),
    "length above the cap": (u64(100_000_001) + bytes(100), "header length", "is 100000001, not 2 to 100"),
    "not UTF-8": (safetensors(b'{"\xff": 1}'), "header", "is not valid UTF-8"),
    "no JSON": (safetensors(b"{'a': 1}"), "header", "is not valid JSON"),
    "bytes after the JSON": (safetensors(b"{} x"), "header", "is not valid JSON: Extra data"),
    "a list": (safetensors(b"[]"), "header", "is not a JSON object"),
    "nested": (safetensors(b'{"a":' * 100_000), "header", "is nested more than 64 deep"),
    "an integer of many digits": (safetensors(b'{"a":' + b"9" * 5000 + b"}"), "header", "is not valid JSON"),
    "NaN": (safetensors(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,0]}}'), "tensor 'a'", "not a list of int"),
    "tensor twice": (
        safetensors(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}'),
        "header",
        "the key 'a' is there twice",
    ),
    "key twice in a tensor": (
        safetensors(b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "header",
        "the key 'dtype' is there twice",
    ),
    "metadata no object": (safetensors({"__metadata__": []}), "__metadata__", "is not an object of strings"),
    "metadata of numbers": (safetensors({"__metadata__": {"a": 1}}), "__metadata__", "is not an object of strings"),
    "tensor no object": (file_of(a=[]), "tensor 'a'", "is not an object of dtype, shape and data_offsets"),
    "key missing": (file_of(a={"dtype": "F32", "shape": []}), "tensor 'a'", "is not an object of dtype, shape"),
    "key too many": (file_of(a=entry(extra=1)), "tensor 'a'", "is not an object of dtype, shape"),
    "name with half a pair": (safetensors(b'{"\\ud800":{}}'), "tensor '\\ud800'", "the name is not valid Unicode"),
    "dtype no string": (file_of(a=entry(dtype=3)), "tensor 'a'", "the dtype is not a string"),
    "shape of floats": (file_of(a=entry(shape=[1.0])), "tensor 'a'", "the shape is not a list of integers from 0"),
    "shape of booleans": (file_of(a=entry(shape=[True])), "tensor 'a'", "the shape is not a list of integers from 0"),
    "negative shape": (file_of(a=entry(shape=[-1, -1])), "tensor 'a'", "the shape is not a list of integers from 0"),
    "9 dimensions": (file_of(a=entry(shape=[1] * 9)), "tensor 'a'", "has 9 dimensions, more than 8"),
    "shape whose product wraps": (
        file_of(a=entry(shape=[1 << 32, 1 << 32])),
        "tensor 'a'",
        "has more than 2^60 elements",
    ),
    "partial product wraps": (file_of(a=entry("F32", [1 << 63, 2, 0], 0, 0)), "tensor 'a'", "more than 2^60 elements"),
    "bytes wrap": (file_of(a=entry(shape=[(1 << 60) - 1])), "tensor 'a'", "has 4 bytes, and shape"),
    "offsets reversed": (
        file_of(a=entry(begin=4, end=0)),
        "tensor 'a'",
        "data_offsets 4 to 0 do not lie in the 4 bytes",
    ),
    "offsets past the end": (file_of(a=entry(end=8)), "tensor 'a'", "data_offsets 0 to 8 do not lie in the 4 bytes"),
    "offsets of 2^64": (file_of(a=entry(begin=1 << 64, end=(1 << 64) + 4)), "tensor 'a'", "do not lie in the 4 bytes"),
    "negative offset": (file_of(a=entry(begin=-4, end=0)), "tensor 'a'", "data_offsets are not two integers from 0"),
    "three offsets": (
        file_of(a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}),
        "tensor 'a'",
        "data_offsets are not two integers from 0",
    ),
    "too few bytes": (file_of(a=entry(shape=[2])), "tensor 'a'", "has 4 bytes, and shape [2] of F32 needs 8"),
    "half a byte": (
        file_of(a=entry("F4", [3], 0, 1), data=b"\0"),
        "tensor 'a'",
        "has 1 bytes, and shape [3] of F4 needs 1.5",
    ),
    "overlap": (
        file_of(a=entry(), b=entry(begin=2, end=6), data=bytes(6)),
        "tensor 'b'",
        "and overlaps the one before, which ends at",
    ),
    "same place": (file_of(a=entry(), b=entry()), "tensor 'b'", "overlaps the one before"),
    "hole": (
        file_of(a=entry(), b=entry(begin=8, end=12), data=bytes(12)),
        "tensor 'b'",
        "and leaves a hole before itself, which ends at",
    ),
    "hole at the start": (file_of(a=entry(begin=4, end=8), data=bytes(8)), "tensor 'a'", "leaves a hole before itself"),
    "bytes after the last": (file_of(a=entry(), data=bytes(5)), "header", "describes data to byte "),
    "no tensors but data": (safetensors({}, bytes(4)), "header", "describes data to byte 10, and the file ends at 14"),
    "a GGUF": (b"GGUF" + bytes(60), None, "is a GGUF file, not a safetensors checkpoint"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", None, "is a Git LFS pointer, not the file itself"),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_hostile_headers_are_refused_with_place_and_reason(case, folder):
    data, field, reason = CASES[case]
    path = folder / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        Checkpoint.open(folder)
    error = caught.value
    assert error.path == str(path)
    assert error.field == field
    assert reason in error.reason
    assert error.offset is not None
    assert 0 <= error.offset <= len(data)
    assert str(error).isprintable()


def test_an_unknown_dtype_is_refused_by_name(folder):
    (folder / "model.safetensors").write_bytes(file_of(a=entry("Q4_K")))
    with pytest.raises(
        UnsupportedError, match=r"model\.safetensors: tensor 'a' has the dtype 'Q4_K', which safetensors"
    ):
        Checkpoint.open(folder)


def test_odd_but_valid_headers_load(folder):
    text = b'{ "b":{"data_offsets":[0,4],"shape":[ ],"dtype":"F32"},\n'
    text += b'"a":{"dtype":"U8","shape":[2,0],"data_offsets":[4,4]} }   '
    (folder / "model.safetensors").write_bytes(safetensors(text, bytes(4)))
    with Checkpoint.open(folder) as checkpoint:
        assert list(checkpoint.tensors) == ["b", "a"]
    (folder / "model.safetensors").write_bytes(safetensors({}))
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.tensors == {}


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is read and set as Linux has it")
def test_memory_and_time_are_bounded_while_refusing(folder):
    tensor = json.dumps(entry("U8", [0], 0, 0)).replace(" ", "")
    texts = {
        "lists": b'{"a":[' + b"[]," * 5_000_000 + b"0]}",
        "a few lists": b'{"a":[' + b"[]," * 125_000 + b"0]}",
        "objects": b'{"a":[' + b"{}," * 125_000 + b"0]}",
        "texts": b'{"a":[' + b'"ab",' * 250_000 + b"0]}",
        "metadata": b'{"__metadata__":{' + b",".join(b'"%d":"%d"' % (i, i) for i in range(125_000)) + b',"x":0}}',
        "tensors": ("{" + ",".join(f'"{i}":{tensor}' for i in range(18_000)) + ',"x":0}').encode(),
        "a wide text": b'{"a":"' + "𝄞".encode() + b"a" * (7 << 20) + b'"}',
        "a wider text": b'{"a":"' + "𝄞".encode() + b"a" * (12 << 20) + b'"}',
        "blanks": b"{" + b" " * 40_000_000 + b"}",
        "brackets": b"[" * 30_000_000,
        "quotes": b'"\\"' * 10_000_000,
    }
    paths = []
    for name, text in texts.items():
        paths.append(folder / f"{name}.safetensors")
        paths[-1].write_bytes(safetensors(text, b"x" if name == "blanks" else b""))
    for path, (outcome, seconds) in open_limited(Checkpoint, *paths).items():
        assert outcome.startswith(path)
        assert "above the limit" not in outcome or "/lists" in path or "/brackets" in path
        assert seconds < 5, (path, seconds)  # of the CPU; a slow one takes more than 1, what this catches minutes
