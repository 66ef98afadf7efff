"""Files that must load, however odd, and how their tensors are read."""

import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import FileFormatError, RequestError
from edgert_quant.blocks.types import BlockType
from edgert_quant.gguf import GgufFile, GgufWriter, ValueType

from tests.support.hostile import BOOL, F32, I32, U32, array_pair, gguf, pair, string, tensor, text_pair, u32


@pytest.fixture
def write(tmp_path):
    def write(data: bytes, name: str = "model.gguf") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def weights(count: int) -> bytes:
    return np.arange(count, dtype=np.float32).tobytes()


def test_reads_a_plain_file(write):
    pairs = [text_pair("general.architecture", "llama"), pair("llama.block_count", U32, u32(2))]
    path = write(gguf(pairs, [tensor("a", [4, 3]), tensor("b", [2, 3, 4], 1, 64)], weights(16) + bytes(48)))
    with GgufFile.open(path) as file:
        assert file.version == 3
        assert file.alignment == 32
        assert file.size == path.stat().st_size
        assert dict(file.metadata) == {"general.architecture": "llama", "llama.block_count": 2}
        assert list(file.tensors) == ["a", "b"]
        a, b = file.tensors["a"], file.tensors["b"]
        assert (a.type, a.shape, a.nbytes, a.rows, a.row_bytes) == (BlockType.F32, (3, 4), 48, 3, 16)
        assert (b.type, b.shape, b.nbytes, b.rows, b.row_bytes) == (BlockType.F16, (4, 3, 2), 48, 12, 4)
        assert b.offset == a.offset + 64
        assert file.read("a").view(np.float32).tolist() == np.arange(12).reshape(3, 4).tolist()


def test_version_2(write):
    with GgufFile.open(write(gguf([], [tensor("a", [2])], weights(2), version=2))) as file:
        assert file.version == 2
        assert file.read("a").view(np.float32).tolist() == [[0, 1]]


def test_alignment_may_follow_other_keys_and_be_any_power_of_two(write):
    for alignment in (1, 4, 64, 4096, 1 << 20):
        pairs = [text_pair("z", "last letter first"), pair("general.alignment", U32, u32(alignment))]
        infos = [tensor("a", [3]), tensor("b", [1], offset=max(alignment, 12))]
        data = weights(3).ljust(max(alignment, 12), b"\0") + struct.pack("<f", 7)
        with GgufFile.open(write(gguf(pairs, infos, data, alignment=alignment))) as file:
            assert file.alignment == alignment
            assert file.read("a").view(np.float32).tolist() == [[0, 1, 2]]
            assert file.read("b").view(np.float32).tolist() == [[7]]


def test_gaps_and_any_order_of_tensors(write):
    infos = [tensor("late", [2], offset=256), tensor("early", [2], offset=64)]
    data = bytes(64) + struct.pack("<2f", 1, 2) + bytes(256 - 72) + struct.pack("<2f", 3, 4) + b"after the end"
    with GgufFile.open(write(gguf([], infos, data))) as file:
        assert list(file.tensors) == ["late", "early"]
        assert file.read("late").view(np.float32).tolist() == [[3, 4]]
        assert file.read("early").view(np.float32).tolist() == [[1, 2]]


def test_no_tensors_no_keys_and_empty_arrays(write):
    with GgufFile.open(write(gguf())) as file:
        assert not file.tensors
        assert not file.metadata
    pairs = [array_pair("s", 8, 0, b""), array_pair("i", I32, 0, b""), array_pair("b", BOOL, 0, b"")]
    with GgufFile.open(write(gguf(pairs))) as file:
        assert file.metadata.strings("s") == []
        assert file.metadata.integers("i").tolist() == []
        assert file.metadata.count("s") == 0


def test_strings_of_every_kind(write):
    values = ["", "a", "\0", "\0" * 8, "é" * 9, "𝄞", "", "x" * 3_000_000, "\0" * 15 + "z", "end", ""]
    path = write(gguf([array_pair("s", 8, len(values), b"".join(map(string, values))), text_pair("t", "𝄞" * 700_000)]))
    with GgufFile.open(path) as file:
        assert file.metadata.count("s") == len(values)
        assert file.metadata.strings("s") == values
        assert file.metadata.string("t") == "𝄞" * 700_000
    without_nul = [value for value in values if "\0" not in value]
    with GgufFile.open(write(gguf([array_pair("s", 8, len(without_nul), b"".join(map(string, without_nul)))]))) as file:
        assert file.metadata.strings("s") == without_nul


def test_a_large_vocabulary_opens_fast(tmp_path):
    tokens = [f"Ġtoken{i}" for i in range(150_000)]
    merges = [f"Ġtok en{i}" for i in range(150_000)]
    with GgufWriter(tmp_path / "v.gguf") as writer:
        writer.add_metadata("tokenizer.ggml.tokens", tokens)
        writer.add_metadata("tokenizer.ggml.merges", merges)
        writer.add_metadata("tokenizer.ggml.token_type", np.ones(150_000, np.int32))
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        with GgufFile.open(tmp_path / "v.gguf") as file:
            read = file.metadata.strings("tokenizer.ggml.tokens"), file.metadata.strings("tokenizer.ggml.merges")
        best = min(best, time.process_time() - start)
        assert read == (tokens, merges)
    assert best < 0.5


def test_rows_of_every_slice(write):
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, 5 * 4 * 34 * 2, np.uint8)
    with GgufFile.open(write(gguf([], [tensor("e", [64, 4, 5], 8)], data.tobytes()))) as file:
        rows = data.reshape(20, 68)
        assert file.tensors["e"].shape == (5, 4, 64)
        for start, count in ((0, 20), (4, 4), (19, 1), (20, 0), (0, 0)):
            assert np.array_equal(file.read("e", start, count), rows[start : start + count])
        assert np.array_equal(file.read("e", 7), rows[7:])
        out = np.zeros((4, 68), np.uint8)
        assert file.read("e", 8, 4, out=out) is out
        assert np.array_equal(out, rows[8:12])
        mapped = file.map("e")
        assert np.array_equal(mapped, rows)
        assert not mapped.flags.writeable
    assert np.array_equal(mapped, rows)  # a map outlives the file


def test_wrong_requests_are_named(write):
    file = GgufFile.open(write(gguf([], [tensor("a", [2, 3])], weights(6))))
    for start, count in ((-1, None), (0, 4), (4, None), (1, -1), (2, 2)):
        with pytest.raises(RequestError, match="tensor 'a' has 3 rows, not "):
            file.read("a", start, count)
    for out in (np.zeros((3, 9), np.uint8), np.zeros((3, 8), np.int8), np.zeros((8, 3), np.uint8).T):
        with pytest.raises(RequestError, match=r"tensor 'a': out must be contiguous uint8 of shape \(3, 8\)"):
            file.read("a", out=out)
    with pytest.raises(FileFormatError, match="tensor 'no': is not in the file"):
        file.read("no")
    file.close()
    file.close()
    with pytest.raises(RequestError, match="the file is closed"):
        file.read("a")
    with pytest.raises(RequestError, match="the file is closed"):
        file.map("a")


def test_a_file_cut_after_opening_is_an_error_not_a_signal(write):
    path = write(gguf([], [tensor("a", [1024, 8])], weights(8192)))
    with GgufFile.open(path) as file:
        size = path.stat().st_size
        os.truncate(path, size - 5000)
        assert file.read("a", 0, 2).nbytes == 8192
        with pytest.raises(FileFormatError, match="cut after it was opened") as caught:
            file.read("a")
        assert caught.value.offset == size - 5000
        assert caught.value.field == "tensor 'a'"
        with pytest.raises(FileFormatError, match=f"had {size} bytes when it was opened and has {size - 5000} now"):
            file.map("a")


def test_what_is_not_a_file_is_named(tmp_path):
    with pytest.raises(RequestError, match="cannot be opened: No such file or directory") as caught:
        GgufFile.open(tmp_path / "none.gguf")
    assert caught.value.parameter == "path"
    with pytest.raises(RequestError, match="cannot be opened"):
        GgufFile.open("a\0b")
    with pytest.raises(FileFormatError, match="is a folder"):
        GgufFile.open(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileFormatError, match="is not a regular file"):
        GgufFile.open(tmp_path / "pipe")


def test_refusing_leaves_no_file_open(write):
    path = write(b"GGUF" + bytes(3))
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.glob("*")))
    for _ in range(20):
        with pytest.raises(FileFormatError):
            GgufFile.open(path)
    assert len(list(descriptors.glob("*"))) <= before


def test_types_of_values_are_kept(write):
    pairs = [pair("f", F32, struct.pack("<f", 0.5)), array_pair("i", I32, 2, struct.pack("<2i", -1, 7))]
    with GgufFile.open(write(gguf(pairs))) as file:
        assert file.metadata.value_type("f") is ValueType.FLOAT32
        assert file.metadata.item_type("f") is None
        assert file.metadata.value_type("i") is ValueType.ARRAY
        assert file.metadata.item_type("i") is ValueType.INT32
        assert file.metadata.count("i") == 2
        array = file.metadata["i"]
        assert isinstance(array, np.ndarray)
        assert not array.flags.writeable
