"""Split models: the first shard names the set, and every inconsistency is named."""

import struct

import numpy as np
import pytest
from edgert_models.errors import FileFormatError
from edgert_quant.gguf import GgufFile

from tests.support.hostile import I32, U16, gguf, pair, tensor, text_pair


def shard(number, count=3, *, names=("a", "b"), total=None):
    pairs = [pair("split.no", U16, struct.pack("<H", number)), pair("split.count", U16, struct.pack("<H", count))]
    if total is not None:
        pairs.append(pair("split.tensors.count", I32, struct.pack("<i", total)))
    if number == 0:
        pairs.append(text_pair("general.architecture", "llama"))
    infos = [tensor(name, [2], offset=32 * i) for i, name in enumerate(names)]
    data = b"".join(struct.pack("<2f", number, i).ljust(32, b"\0") for i in range(len(names)))
    return gguf(pairs, infos, data)


@pytest.fixture
def folder(tmp_path):
    def write(*shards, stem="model"):
        for number, data in enumerate(shards):
            (tmp_path / f"{stem}-{number + 1:05d}-of-{len(shards):05d}.gguf").write_bytes(data)
        return tmp_path / f"{stem}-00001-of-{len(shards):05d}.gguf"

    return write


def test_a_set_opens_as_one_model(folder):
    first = folder(shard(0, names=(), total=4), shard(1), shard(2, names=("c", "d")), stem="a-00001-of-00002-b")
    with GgufFile.open(first) as file:
        assert file.path == first
        names = [f"a-00001-of-00002-b-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
        assert [path.name for path in file.paths] == names
        assert file.size == sum(path.stat().st_size for path in file.paths)
        assert list(file.tensors) == ["a", "b", "c", "d"]
        assert file.tensors["d"].shard == 2
        assert file.path_of("d") == file.paths[2]
        assert file.metadata.string("general.architecture") == "llama"
        for name, expected in (("a", [1, 0]), ("b", [1, 1]), ("c", [2, 0]), ("d", [2, 1])):
            assert file.read(name).view(np.float32).tolist() == [expected]
            assert np.array_equal(file.map(name), file.read(name))


def test_one_shard_of_one_needs_no_name(tmp_path):
    (tmp_path / "x.gguf").write_bytes(shard(0, 1))
    with GgufFile.open(tmp_path / "x.gguf") as file:
        assert list(file.tensors) == ["a", "b"]


def test_a_missing_shard_is_named(folder):
    first = folder(shard(0), shard(1, names="cd"), shard(2, names="ef"))
    missing = first.with_name("model-00002-of-00003.gguf")
    missing.unlink()
    with pytest.raises(FileFormatError) as caught:
        GgufFile.open(first)
    assert str(caught.value) == f"{missing}: a shard of {first.name} is missing: put all 3 in one folder"
    first.with_name("model-00003-of-00003.gguf").unlink()
    with pytest.raises(FileFormatError, match="is missing and 1 more: put all 3 in one folder"):
        GgufFile.open(first)


def test_a_later_shard_names_the_first(folder):
    first = folder(shard(0), shard(1, names="cd"), shard(2, names="ef"))
    with pytest.raises(
        FileFormatError, match=r"split\.no: this is shard 3 of 3; open the first one, model-00001-of-00003"
    ):
        GgufFile.open(first.with_name("model-00003-of-00003.gguf"))


@pytest.mark.parametrize(
    ("shards", "reason"),
    [
        ((shard(0), shard(2, names="cd"), shard(2, names="ef")), "split.no: is 2 in shard 2 of 3, where 1 belongs"),
        ((shard(0), shard(1, 4, names="cd"), shard(2, names="ef")), "split.count: is 4, and 3 in the first shard"),
        ((shard(0), shard(1, names="bc"), shard(2, names="ef")), "tensor 'b': is in model-00001-of-00003.gguf too"),
        ((shard(0, total=5), shard(1, names="cd"), shard(2, names="ef")), "is 5, and the 3 shards have 6 tensors"),
        ((shard(0, total=-1), shard(1, names="cd"), shard(2, names="ef")), "split.tensors.count: is -1, below 0"),
        ((shard(0), gguf(), shard(2, names="ef")), "split.no: is missing from the metadata"),
        ((shard(0), b"GGUF", shard(2, names="ef")), "version: needs 4 bytes"),
        ((shard(0, 2), shard(1, names="cd"), shard(2, names="ef")), "must be named NAME-00001-of-00002.gguf"),
        ((shard(0, 65_535), shard(1), shard(2)), "split.count: is 65535, above the limit of 1024"),
    ],
)
def test_inconsistent_sets_are_refused(folder, shards, reason):
    with pytest.raises(FileFormatError) as caught:
        GgufFile.open(folder(*shards))
    assert reason in str(caught.value)


def test_the_name_of_a_set_is_checked(tmp_path):
    (tmp_path / "renamed.gguf").write_bytes(shard(0))
    with pytest.raises(
        FileFormatError, match="this is the first of 3 shards, so the file must be named NAME-00001-of-"
    ):
        GgufFile.open(tmp_path / "renamed.gguf")
