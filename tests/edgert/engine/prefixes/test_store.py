"""Files of prefixes: what is not whole and of its name is not there, and there are no more bytes than are allowed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import RequestError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgert.engine.prefixes.segment import Segment, segment_bytes
from edgert.engine.prefixes.store import BLOCK, STATE, Store

NAMES = [bytes([n]) * 32 for n in range(200)]
CONTENT = np.arange(1000, dtype=np.uint8)
SIZE = segment_bytes([(NAMES[0], CONTENT)])


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("??/*") if path.is_file())


def total(folder: Path) -> int:
    """Bytes of all files; one of several names counts once."""
    return sum({path.stat().st_ino: path.stat().st_size for path in files(folder)}.values())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "a" / "b", 1 << 20)
    assert store.write([(NAMES[0], CONTENT)], BLOCK)
    assert store.write([(NAMES[0], CONTENT[:10])], STATE)
    again = Store(tmp_path / "a" / "b", 1 << 20)
    np.testing.assert_array_equal(again.read(NAMES[0], BLOCK), CONTENT)
    np.testing.assert_array_equal(again.read(NAMES[0], STATE), CONTENT[:10])
    assert (again.has(NAMES[0], BLOCK), again.has(NAMES[1], BLOCK)) == (True, False)
    assert again.read(NAMES[1], BLOCK) is None
    assert (again.size, again.damaged) == (2 * SIZE - 990, 0)
    assert {path.stat().st_mode & 0o777 for path in files(tmp_path / "a" / "b")} == {0o600}


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_what_is_written_together_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
    contents = [(name, CONTENT + number) for number, name in enumerate(NAMES[:100])]
    store = Store(tmp_path, 1 << 20)
    assert store.write(contents[:3], BLOCK) == 3
    assert store.write(contents, BLOCK) == 100  # three are there already
    inodes = {path.stat().st_ino for path in files(tmp_path)}
    assert len(inodes) == (3 if links else 100)  # 64 are the most in one
    assert store.size == total(tmp_path)
    again = Store(tmp_path, 1 << 20)
    assert again.size == store.size
    opened: list[Path] = []
    monkeypatch.setattr(Segment, "_index", lambda self, index=Segment._index: opened.append(self) or index(self))
    with again.reading(BLOCK) as reader:
        for name, content in contents:
            np.testing.assert_array_equal(reader.read(name), content)
        assert reader.read(NAMES[150]) is None
    assert len(opened) == len(inodes)
    assert again.damaged == 0


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_file_is_no_file(tmp_path: Path, data: st.DataObject) -> None:
    store = Store(tmp_path, 1 << 20)
    store.write([(NAMES[1], CONTENT[:50])], BLOCK)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "longer", "flip"]))
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    path.write_bytes({"cut": whole[:place], "longer": whole + b"x", "flip": flipped}[kind])
    assert store.read(NAMES[1], BLOCK) is None
    assert store.damaged == 1
    assert not store.has(NAMES[1], BLOCK)


def test_a_file_under_the_name_of_another_is_no_file(tmp_path: Path) -> None:
    store = Store(tmp_path, 1 << 20)
    store.write([(NAMES[1], CONTENT)], BLOCK)
    store.write([(NAMES[2], CONTENT[::-1])], BLOCK)
    first, second = files(tmp_path)
    first.replace(second)
    assert store.read(NAMES[2], BLOCK) is None
    second.symlink_to(tmp_path / "size")
    assert store.read(NAMES[2], BLOCK) is None


def test_the_cap_holds_and_the_oldest_go(tmp_path: Path) -> None:
    store = Store(tmp_path, 10 * SIZE)
    for age, name in enumerate(NAMES[:10]):
        assert store.write([(name, CONTENT)], BLOCK)
        os.utime(store._path(name, BLOCK), (age, age))
    store.touch(NAMES[0], BLOCK)
    for name in NAMES[10:13]:
        assert store.write([(name, CONTENT)], BLOCK)
        assert total(tmp_path) <= 10 * SIZE
    assert store.size == total(tmp_path)
    assert store.has(NAMES[0], BLOCK)
    assert not store.has(NAMES[1], BLOCK)
    assert store.has(NAMES[12], BLOCK)
    assert not store.write([(NAMES[20], np.zeros(11 * SIZE, np.uint8))], BLOCK)
    smaller = Store(tmp_path, 3 * SIZE)
    assert smaller.size <= 3 * SIZE


def test_names_of_one_file_go_together(tmp_path: Path) -> None:
    store = Store(tmp_path, 40 * SIZE)
    for first in range(0, 60, 4):  # with room for ten files of four
        assert store.write([(name, CONTENT) for name in NAMES[first : first + 4]], BLOCK) == 4
        for path in files(tmp_path):
            assert path.stat().st_nlink == 4
            if store.has(NAMES[first], BLOCK) and path.stat().st_ino == store._path(NAMES[first], BLOCK).stat().st_ino:
                os.utime(path, (first, first))
        assert store.size == total(tmp_path) <= 40 * SIZE
    there = [store.has(name, BLOCK) for name in NAMES[:60]]
    assert there == sorted(there)  # the latest
    assert there.count(True) in range(32, 41, 4)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_processes_share_a_folder_and_its_cap(tmp_path: Path) -> None:
    program = f"""
import numpy as np, sys
from pathlib import Path
from edgert.engine.prefixes.segment import Segment, segment_bytes
from edgert.engine.prefixes.store import BLOCK, Store
store = Store(Path({str(tmp_path)!r}), 40 * {SIZE})
for n in range(60):
    names = [bytes([m + int(sys.argv[1])]) * 32 for m in range(n, n + 3)]
    assert store.write([(name, np.arange(1000, dtype=np.uint8)) for name in names], BLOCK) == 3
    store.read(bytes([n]) * 32, BLOCK)
assert store.damaged == 0
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, first]) for first in ("0", "40")]
    assert [process.wait(60) for process in processes] == [0, 0]
    size = total(tmp_path)
    assert size <= 40 * SIZE
    store = Store(tmp_path, 40 * SIZE)
    assert store.size == size
    there = [name for name in NAMES if store.has(name, BLOCK)]
    assert len(there) >= 30
    for name in there:
        np.testing.assert_array_equal(store.read(name, BLOCK), CONTENT)


def test_a_count_that_was_changed_is_counted_again(tmp_path: Path) -> None:
    store = Store(tmp_path, 10 * SIZE)
    store.write([(NAMES[0], CONTENT)], BLOCK)
    (tmp_path / "size").write_bytes(b"\xff" * 20)
    assert store.write([(NAMES[1], CONTENT)], BLOCK)
    assert store.size == 2 * SIZE


def test_folders_that_others_may_write_are_refused(tmp_path: Path) -> None:
    own = tmp_path / "open"
    own.mkdir()
    own.chmod(0o777)
    with pytest.raises(RequestError, match=r"open: it is not a folder that only this user can write"):
        Store(own, 1000)
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"prefixes cannot be kept in .*file: File exists"):
        Store(tmp_path / "file", 1000)


def test_a_disk_that_is_full_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, 10 * SIZE)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgert.engine.prefixes.store.tempfile.mkstemp", full)
    assert not store.write([(NAMES[0], CONTENT)], BLOCK)
    assert store.size == 0
