"""Other metadata for the same tensors, and the checksum that ties the two."""

from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import ConversionError, FileFormatError, RequestError
from edgert_quant.blocks.types import BlockType
from edgert_quant.gguf import GgufFile, GgufWriter, ValueType, rewrite_metadata, weights_sha256

from tests.quant.gguf.test_split import shard

EVERY_TYPE = {
    "a.bytes": (np.array([1, 255], np.uint8), ValueType.UINT8),
    "a.flags": (np.array([True, False]), ValueType.BOOL),
    "a.texts": (["", "ä", "c"], ValueType.STRING),
    "a.none": ([], ValueType.STRING),
    "a.long": (np.array([-1, 1 << 40], np.int64), ValueType.INT64),
    "b.float": (0.1, ValueType.FLOAT32),
    "b.double": (0.1, ValueType.FLOAT64),
    "b.small": (7, ValueType.UINT8),
    "b.flag": (True, ValueType.BOOL),
    "b.text": ("x", ValueType.STRING),
}


def write(path: Path, names: str = "ba", alignment: int = 32) -> Path:
    with GgufWriter(path, alignment) as writer:
        writer.add_metadata("general.architecture", "llama")
        for key, (value, kind) in EVERY_TYPE.items():
            writer.add_metadata(key, value, kind)  # type: ignore[arg-type]
        for name in names:
            writer.add_tensor(name, BlockType.F32, (3, 5))
        writer.begin()
        for name in names:
            writer.write(name, np.full((3, 5), ord(name), np.float32))
    return path


def stored(path: Path) -> dict[str, tuple[str, ValueType, ValueType | None]]:
    with GgufFile.open(path) as file:
        found = file.metadata
        return {key: (str(found[key]), found.value_type(key), found.item_type(key)) for key in found}


def checksum(path: Path) -> str:
    with GgufFile.open(path) as file:
        return weights_sha256(file)


@pytest.mark.parametrize("alignment", [32, 64, 8])
def test_everything_else_stays(tmp_path: Path, alignment: int) -> None:
    path = write(tmp_path / "a.gguf", alignment=alignment)
    before, digest = stored(path), checksum(path)
    with GgufFile.open(path) as old:  # still readable when it has been replaced
        rewrite_metadata(path, {"q.score": np.float64(0.5), "b.small": 9}, without="a.")
        assert old.read("a").size == 60
    after = stored(path)
    assert after.pop("q.score") == ("0.5", ValueType.FLOAT64, None)
    assert after.pop("b.small") == ("9", ValueType.UINT32, None)
    assert after == {key: value for key, value in before.items() if not key.startswith("a.") and key != "b.small"}
    with GgufFile.open(path) as file:
        assert list(file.tensors) == ["b", "a"]
        assert file.alignment == alignment
    assert checksum(path) == digest
    rewrite_metadata(path, {"b.small": np.uint8(7)})
    assert not list(tmp_path.glob("*.partial"))


def test_nothing_to_change_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf")
    before = path.read_bytes()
    rewrite_metadata(path, {})
    assert path.read_bytes() == before


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf")
    before = path.read_bytes()
    with pytest.raises(ConversionError, match="GGUF has no type for a value of object"):
        rewrite_metadata(path, {"x": object()})
    with pytest.raises(RequestError, match="cannot be opened"):
        rewrite_metadata(tmp_path / "none.gguf", {})
    assert [each.name for each in tmp_path.iterdir()] == ["a.gguf"]
    assert path.read_bytes() == before


def test_of_a_split_set_the_first_is_written(tmp_path: Path) -> None:
    paths = [tmp_path / f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for number, path in enumerate(paths):
        path.write_bytes(shard(number, names=("a", "b") if not number else (f"c{number}",)))
    digest, others = checksum(paths[0]), [path.read_bytes() for path in paths[1:]]
    rewrite_metadata(paths[0], {"q.score": 1})
    assert checksum(paths[0]) == digest
    assert [path.read_bytes() for path in paths[1:]] == others
    with GgufFile.open(paths[0]) as file:
        assert file.metadata.integer("q.score") == 1
        assert len(file.tensors) == 4
    with pytest.raises(FileFormatError, match=r"this is shard 2 of 3; open the first one, m-00001-of-00003.gguf"):
        rewrite_metadata(paths[1], {})


def test_the_checksum_is_of_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.gguf", "ab"), write(tmp_path / "b.gguf", "ba")
    assert checksum(one) == checksum(other)  # whatever the order
    assert checksum(write(tmp_path / "c.gguf", "ac")) != checksum(one)
    told: list[tuple[int, int]] = []
    with GgufFile.open(one) as file:
        weights_sha256(file, lambda *event: told.append(event))
    assert told == [(60, 120), (120, 120)]
    data = bytearray(one.read_bytes())
    data[-8] ^= 1
    one.write_bytes(data)
    assert checksum(one) != checksum(other)
    with GgufWriter(tmp_path / "d.gguf") as writer:
        for name in "ab":
            writer.add_tensor(name, BlockType.F32, (5, 3))
        writer.begin()
        for name in "ab":
            writer.write(name, np.full(15, ord(name), np.float32))
    assert checksum(tmp_path / "d.gguf") != checksum(other)  # the same bytes in another shape
