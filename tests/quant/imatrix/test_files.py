"""Both forms of files."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import ConversionError, FileFormatError, RequestError
from edgert_quant.blocks import BlockType
from edgert_quant.gguf import GgufFile, GgufWriter
from edgert_quant.imatrix import Importance, Sums, read_imatrix, write_imatrix

from tests.quant.imatrix.samples import old_form, old_tail, random_sums
from tests.support.hostile import gguf, tensor, text_pair

KIND = text_pair("general.type", "imatrix")


def equal(one: Importance, other: Importance) -> None:
    assert sorted(one.sums) == sorted(other.sums)
    for name, sums in one.sums.items():
        np.testing.assert_array_equal(sums.in_sum2, other.sums[name].in_sum2)
        np.testing.assert_array_equal(sums.counts, other.sums[name].counts)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    sums = {"blk.0.ffn_up_exps.weight": random_sums(5, 8), "blk.0.attn_q.weight": random_sums(1, 6)}
    whole = Importance(sums, ("a.txt", "ü.txt"), 7, 512)
    write_imatrix(tmp_path / "i.gguf", whole)
    again = read_imatrix(tmp_path / "i.gguf")
    equal(again, whole)
    assert (again.datasets, again.chunk_count, again.chunk_size, again.counted) == (("a.txt", "ü.txt"), 7, 512, True)
    write_imatrix(tmp_path / "again.gguf", again)
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "i.gguf").read_bytes()
    with GgufFile.open(tmp_path / "i.gguf") as file:
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        assert {tensor.type for tensor in file.tensors.values()} == {BlockType.F32}
    assert shapes == {
        "blk.0.attn_q.weight.in_sum2": (6,),
        "blk.0.attn_q.weight.counts": (1,),
        "blk.0.ffn_up_exps.weight.in_sum2": (5, 8),
        "blk.0.ffn_up_exps.weight.counts": (5, 1),
    }


def test_an_output_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "i.gguf").write_bytes(b"older")
    with pytest.raises(ConversionError, match="has 74 bytes"):
        write_imatrix(tmp_path / "i.gguf", Importance({66 * "x": random_sums(1, 2)}))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


def test_the_older_form(tmp_path: Path) -> None:
    values = np.arange(1, 13, dtype=np.float32)
    path = tmp_path / "i.dat"
    path.write_bytes(old_form({"blk.0.a": (3, values), "blk.1.a": (0, [5.0])}, old_tail(9, "/home/me/wiki.txt")))
    found = read_imatrix(path)
    assert (found.datasets, found.chunk_count, found.counted) == (("/home/me/wiki.txt",), 9, False)
    np.testing.assert_allclose(found.of("blk.0.a"), values[None] / 3, rtol=1e-6)
    np.testing.assert_allclose(found.of("blk.1.a"), [[5.0]])
    path.write_bytes(old_form({"blk.0.a": (3, values)}))
    assert read_imatrix(path).datasets == ()


def write(path: Path, tensors: dict[str, np.ndarray], **metadata: object) -> Path:
    with GgufWriter(path) as writer:
        for key, value in {"general.type": "imatrix", **metadata}.items():
            writer.add_metadata(key, value)  # type: ignore[arg-type]
        kinds = {"float32": BlockType.F32, "float16": BlockType.F16}
        for name, values in tensors.items():
            writer.add_tensor(name, kinds[values.dtype.name], values.shape)
        writer.begin()
        for name, values in tensors.items():
            writer.write(name, values)
    return path


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"a.in_sum2": floats(1)}, {}, "tensor 'a.in_sum2': has no counts (.counts) beside it"),
        ({"a.counts": floats(1)}, {}, "tensor 'a.counts': has no sums (.in_sum2) beside it"),
        (
            {"a.in_sum2": floats(1, 2, 3), "a.counts": floats(1, 2)},
            {},
            "tensor 'a.in_sum2': 3 sums cannot be of 2 matrices of the same width",
        ),
        ({"a.in_sum2": floats(1).astype(np.float16), "a.counts": floats(1)}, {}, "'a.in_sum2': is F16, not F32"),
        ({"a.in_sum2": floats(1, -2), "a.counts": floats(1)}, {}, "'a.in_sum2': value 1 is -2; a sum of squares, or"),
        ({"a.in_sum2": floats(np.inf), "a.counts": floats(1)}, {}, "tensor 'a.in_sum2': value 0 is inf"),
        ({"a.in_sum2": floats(1), "a.counts": floats(np.nan)}, {}, "tensor 'a.counts': value 0 is nan"),
        ({"a.in_sum2": floats(1), "a.counts": floats(1e30)}, {}, "tensor 'a.counts': value 0 is 1e+30"),
        ({"b": floats(1)}, {}, "is an importance matrix of nothing"),
        ({}, {"general.type": "model"}, "is no importance matrix: general.type is 'model', not 'imatrix'"),
        (
            {"a.in_sum2": floats(1), "a.counts": floats(1)},
            {"imatrix.chunk_count": "x"},
            "imatrix.chunk_count: is STRING, not an integer",
        ),
        (
            {"a.in_sum2": floats(1), "a.counts": floats(1)},
            {"imatrix.datasets": "x"},
            "imatrix.datasets: is STRING, not an array of strings",
        ),
    ],
)
def test_damaged_gguf(
    tensors: dict[str, np.ndarray], metadata: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "i.gguf", tensors, **metadata)
    with pytest.raises(FileFormatError, match=re.escape(message)) as caught:
        read_imatrix(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


GOOD = old_form({"blk.0.a": (3, [1.0, 2.0])}, old_tail(1, "text"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "at byte 0, number of entries: needs 4 bytes, and the file has 0 more; is it an importance matrix?"),
        (b"text", "at byte 0, number of entries: is 1954047348, not 1 to 65536; is it an importance matrix?"),
        (GOOD[:12], "name of entry 0: needs 7 bytes, and the file has 4 more"),
        (GOOD[:30], "values of 'blk.0.a': needs 8 bytes, and the file has 7 more"),
        (GOOD[:-2], "name of the text: needs 4 bytes, and the file has 2 more"),
        (GOOD[:19] + struct.pack("<i", -1) + GOOD[23:], "number of values of 'blk.0.a': is -1, not 1 to 2147483647"),
        (struct.pack("<ii", 1, 99), "length of the name of entry 0: is 99, not 0 to 63"),
        (old_form({"": (1, [1.0])}), "entry 0: the name '' is empty"),
        (struct.pack("<i", 2) + old_form({"a": (1, [1.0])})[4:] * 2, "entry 1: the name 'a' is there twice"),
        (old_form({"a": (1, [np.nan])}), "tensor 'a': value 0 is nan"),
        (old_form({"a": (1, [3e38])}), "tensor 'a': value 0 is inf"),
        (old_form({"a": (1, [1.0])}).replace(b"a", b"\xff"), "name of entry 0: is not valid UTF-8"),
    ],
)
def test_damaged_older_form(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=re.escape(message)) as caught:
        read_imatrix(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.gguf: cannot be opened: No such file"):
        read_imatrix(tmp_path / "none.gguf")


def test_sums_of_one_column(tmp_path: Path) -> None:
    """Names without a dimension that the reader could count on."""
    path = tmp_path / "i.gguf"
    infos = [tensor("a.in_sum2", [1], 0, 0), tensor("a.counts", [1], 0, 32)]
    path.write_bytes(gguf([KIND], infos, struct.pack("<f28xf28x", 2.0, 4.0)))
    equal(read_imatrix(path), Importance({"a": Sums(floats(2.0)[None], np.array([4]))}))
