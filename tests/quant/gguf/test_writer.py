"""The writer's declarations, its checks, and that the output depends on nothing but the input."""

import os
import subprocess
import sys

import numpy as np
import pytest
from edgert_models.errors import ConversionError
from edgert_quant.blocks.types import BlockType
from edgert_quant.gguf import GgufFile, GgufWriter, ValueType

from tests.support.budget import environment


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.gguf"


def write_small(path, value=1.0):
    with GgufWriter(path) as writer:
        writer.add_metadata("general.architecture", "llama")
        writer.add_tensor("a", BlockType.F32, (2, 5))
        writer.add_tensor("b", BlockType.F32, (3,))
        writer.begin()
        writer.write("a", np.full((2, 5), value, np.float32))
        writer.write("b", np.full(3, value, np.float32).tobytes())


@pytest.mark.parametrize(
    ("value", "kind", "item"),
    [
        (0, ValueType.UINT32, None),
        ((1 << 32) - 1, ValueType.UINT32, None),
        (-1, ValueType.INT32, None),
        (1 << 32, ValueType.UINT64, None),
        (-(1 << 40), ValueType.INT64, None),
        (0.5, ValueType.FLOAT32, None),
        (True, ValueType.BOOL, None),
        ("s", ValueType.STRING, None),
        (np.uint8(3), ValueType.UINT8, None),
        (np.float64(3), ValueType.FLOAT64, None),
        ([1, -2], ValueType.ARRAY, ValueType.INT32),
        ([1, 1 << 40], ValueType.ARRAY, ValueType.INT64),
        ([1, 1 << 63], ValueType.ARRAY, ValueType.UINT64),
        (b"\0\xff", ValueType.ARRAY, ValueType.UINT8),
        ([0.5, 2.0], ValueType.ARRAY, ValueType.FLOAT32),
        (["a", "b"], ValueType.ARRAY, ValueType.STRING),
        ((False,), ValueType.ARRAY, ValueType.BOOL),
        (np.array([1, 2], np.int16), ValueType.ARRAY, ValueType.INT16),
        (np.arange(8, dtype=">u4")[::2], ValueType.ARRAY, ValueType.UINT32),
    ],
)
def test_types_are_inferred(path, value, kind, item):
    with GgufWriter(path) as writer:
        writer.add_metadata("k", value)
    with GgufFile.open(path) as file:
        assert file.metadata.value_type("k") is kind
        assert file.metadata.item_type("k") is item
        found = file.metadata["k"]
        assert (found.tolist() if isinstance(found, np.ndarray) else found) == (
            value.tolist() if isinstance(value, np.ndarray | np.generic) else list(value) if item is not None else value
        )


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        (256, ValueType.UINT8, "256 is no UINT8"),
        (-1, ValueType.UINT64, "-1 is no UINT64"),
        (1 << 64, None, "18446744073709551616 does not fit 64 bits"),
        (True, ValueType.UINT32, "True is no UINT32"),
        (1, ValueType.BOOL, "1 is no BOOL"),
        (1e39, None, r"1e\+39 is no FLOAT32"),
        (None, None, "GGUF has no type for a value of NoneType"),
        ("text", ValueType.INT32, "'text' is no INT32"),
        ("a\ud800", None, "surrogates not allowed"),
        ([], None, "an empty array needs an element type"),
        ([1, "a"], None, "an array of mixed types: .'INT64', 'STRING'."),
        ([1, -1], ValueType.UINT8, "-1 is no UINT8"),
        ([[1]], None, "GGUF has no type for a value of list"),
        ([1 << 63, -1], None, "fit neither INT64 nor UINT64"),
        ([1], ValueType.ARRAY, "give the type of its items"),
        (np.zeros((2, 2)), None, "an array of 2 dimensions"),
        (np.zeros(2, np.complex64), None, "GGUF has no type for an array of complex64"),
    ],
)
def test_values_gguf_cannot_hold_are_refused(path, value, kind, reason):
    with pytest.raises(ConversionError, match=f"metadata 'k': .*{reason}"), GgufWriter(path) as writer:
        writer.add_metadata("k", value, kind)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    ("name", "kind", "shape", "reason"),
    [
        ("", BlockType.F32, (1,), "has 0 bytes, not 1 to 63"),
        ("n" * 64, BlockType.F32, (1,), "has 64 bytes, not 1 to 63"),
        ("é" * 32, BlockType.F32, (1,), "has 64 bytes, not 1 to 63"),
        ("\ud800", BlockType.F32, (1,), "is not valid Unicode"),
        ("a", BlockType.F32, (), "tensor 'a' has 0 dimensions, not 1 to 4"),
        ("a", BlockType.F32, (1,) * 5, "tensor 'a' has 5 dimensions, not 1 to 4"),
        ("a", BlockType.F32, (2, 0), "tensor 'a' has a dimension of 0"),
        ("a", BlockType.F32, (1 << 40, 1 << 40), "tensor 'a' has more than 2.63 elements"),
        ("a", BlockType.Q4_K, (2, 128), "has rows of 128 weights, no multiple of the 256 in a Q4_K block"),
        ("twice", BlockType.F32, (1,), "the tensor 'twice' is declared twice"),
    ],
)
def test_wrong_tensors_are_refused(path, name, kind, shape, reason):
    with pytest.raises(ConversionError, match=reason), GgufWriter(path) as writer:  # noqa: PT012
        writer.add_tensor("twice", BlockType.F32, (1,))
        writer.add_tensor(name, kind, shape)
    assert not list(path.parent.iterdir())


def test_keys_and_alignment_are_checked(path):
    with GgufWriter(path) as writer:
        writer.add_metadata("k", 1)
        with pytest.raises(ConversionError, match="the key 'k' is declared twice"):
            writer.add_metadata("k", 2)
        with pytest.raises(ConversionError, match="a key has 1 to 65535 bytes, not 0"):
            writer.add_metadata("", 2)
        with pytest.raises(ConversionError, match="a key has 1 to 65535 bytes, not 65536"):
            writer.add_metadata("k" * 65_536, 2)
        with pytest.raises(ConversionError, match="alignment is 64, and the file is written with 32"):
            writer.add_metadata("general.alignment", 64)
    for alignment in (0, 24, -32, 1 << 21):
        with pytest.raises(ConversionError, match=f"alignment {alignment} is"):
            GgufWriter(path, alignment)


def test_data_must_be_what_was_declared(path):
    path.write_bytes(b"old")

    def expect(reason, *pieces):
        with pytest.raises(ConversionError, match=reason), GgufWriter(path) as writer:  # noqa: PT012
            writer.add_tensor("a", BlockType.F32, (2, 2))
            writer.add_tensor("b", BlockType.F32, (2,))
            writer.begin()
            for name, size in pieces:
                writer.write(name, bytes(size))
        assert [entry.name for entry in path.parent.iterdir()] == ["model.gguf"]
        assert path.read_bytes() == b"old"

    expect("tensor 'a' lacks 16 of its 16 bytes")
    expect("tensor 'a' lacks 1 of its 16 bytes", ("a", 15))
    expect("tensor 'b' lacks 8 of its 8 bytes", ("a", 16))
    expect("tensor 'a' was declared with 16 bytes, and gets 1 more", ("a", 8), ("a", 9))
    expect("data for tensor 'b', where 'a' is next", ("b", 8))
    expect("data for tensor 'b', where 'a' is next", ("a", 15), ("b", 8))
    expect("data for tensor 'a', where 'b' is next", ("a", 16), ("a", 1))
    expect("data for tensor 'b', where all tensors are complete", ("a", 16), ("b", 8), ("b", 1))


def test_the_order_of_calls_is_checked(path):
    with GgufWriter(path) as writer:
        writer.add_tensor("a", BlockType.F32, (1,))
        with pytest.raises(ConversionError, match=r"begin\(\) comes before write\(\)"):
            writer.write("a", bytes(4))
        writer.begin()
        for call in (
            writer.begin,
            lambda: writer.add_metadata("k", 1),
            lambda: writer.add_tensor("b", BlockType.F32, (1,)),
        ):
            with pytest.raises(ConversionError, match=r"cannot be declared after begin\(\)"):
                call()
        writer.write("a", b"")
        writer.write("a", bytes(4))


def test_an_exception_leaves_the_old_file(path):
    write_small(path)
    old = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), GgufWriter(path) as writer:  # noqa: PT012
        writer.add_tensor("a", BlockType.F32, (1000,))
        writer.begin()
        writer.write("a", bytes(400))
        raise KeyboardInterrupt
    assert path.read_bytes() == old
    assert [entry.name for entry in path.parent.iterdir()] == ["model.gguf"]


def test_arrays_of_any_memory_order(path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    with GgufWriter(path) as writer:
        writer.add_tensor("a", BlockType.F32, (4, 3, 2))
        writer.begin()
        for part in array.T:
            writer.write("a", part)
    with GgufFile.open(path) as file:
        assert np.array_equal(file.read("a").view(np.float32).reshape(4, 3, 2), array.T)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    """Over umask, working folder, locale, time zone and hash seed."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom edgert_quant.blocks.types import BlockType\n"
        "from edgert_quant.gguf import GgufWriter\nos.umask(int(sys.argv[2], 8))\n"
        "with GgufWriter(sys.argv[1]) as w:\n"
        "    for key in ('b', 'a', 'c'): w.add_metadata(key, sorted({'x', 'y', key}))\n"
        "    w.add_tensor('t', BlockType.F32, (4, 3)); w.begin(); w.write('t', bytes(range(48)))\n"
    )
    seen = set()
    for number, (umask, extra) in enumerate(
        [("022", {}), ("077", {"LC_ALL": "C", "TZ": "Asia/Tokyo"}), ("000", {"PYTHONHASHSEED": "7"})]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-c", script, "x.gguf", umask]
        subprocess.run(command, cwd=folder, env={**environment(), **extra}, check=True)
        seen.add((folder / "x.gguf").read_bytes())
        assert (folder / "x.gguf").stat().st_mode & 0o777 == 0o666 & ~int(umask, 8)
    assert len(seen) == 1


def test_the_mode_of_a_replaced_file_is_kept(path):
    write_small(path)
    path.chmod(0o640)
    write_small(path, 2.0)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_is_followed(tmp_path, path):
    (tmp_path / "disk").mkdir()
    path.symlink_to(tmp_path / "disk" / "real.gguf")
    write_small(path)
    assert path.is_symlink()
    with GgufFile.open(tmp_path / "disk" / "real.gguf") as file:
        assert list(file.tensors) == ["a", "b"]


def test_targets_that_are_no_files_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("folder", "is a folder; name a file to write"),
        ("pipe", "is not a regular file; name a file to write"),
        ("none/x.gguf", "there is no folder"),
    ):
        with pytest.raises(ConversionError, match=reason):
            write_small(tmp_path / name)
    with pytest.raises(ConversionError, match="is not a regular file"):
        write_small("/dev/null")


def test_long_and_odd_names(tmp_path):
    for name in ("n" * 250 + ".gguf", "[a-z]*.gguf", "ünïcode \n.gguf"):
        write_small(tmp_path / name)
        with GgufFile.open(tmp_path / name) as file:
            assert len(file.tensors) == 2
    assert len(list(tmp_path.iterdir())) == 3
