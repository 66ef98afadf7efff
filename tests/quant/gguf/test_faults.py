"""A disk that fails at any call, a disk that is full, and a process that is killed at any moment."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import ConversionError
from edgert_quant.blocks.types import BlockType
from edgert_quant.gguf import GgufFile, GgufWriter

from tests.support.budget import environment

PIECES = 6


def write_model(path, value=1.0):
    with GgufWriter(path) as writer:
        writer.add_metadata("general.architecture", "llama")
        writer.add_tensor("experts", BlockType.F32, (PIECES, 3, 33))
        writer.add_tensor("norm", BlockType.F32, (33,))
        writer.begin()
        for _ in range(PIECES):
            writer.write("experts", np.full((3, 33), value, np.float32))
        writer.write("norm", np.full(33, value, np.float32))


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def old(tmp_path):
    """An output of an earlier run, and its bytes."""
    path = tmp_path / "model.gguf"
    write_model(path, 0.5)
    return path, path.read_bytes()


def count_calls(monkeypatch, function, path):
    calls = 0
    original = getattr(os, function)

    def counted(*arguments):
        nonlocal calls
        calls += 1
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, counted)
        write_model(path)
    return calls


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("function", ["write", "fsync"])
def test_every_failing_call(monkeypatch, tmp_path, old, function, code):
    path, content = old
    total = count_calls(monkeypatch, function, tmp_path / "model.gguf")
    assert total >= (PIECES + 2 if function == "write" else 2)
    original = getattr(os, function)
    for failing in range(total):
        write_model(path, 0.5)
        calls = -1

        def fail(*arguments, failing=failing):
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(code, os.strerror(code))
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises(ConversionError) as caught:
                write_model(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: cannot be ")
        assert os.strerror(code) in message
        assert "the file needs 2720 bytes (2.7 KiB), and the disk has " in message
        assert names(tmp_path) == ["model.gguf"]
        if function == "write" or failing == 0:  # the second fsync is that of the folder, after the rename
            assert path.read_bytes() == content


def test_every_short_write_is_completed(monkeypatch, tmp_path):
    path = tmp_path / "model.gguf"
    write_model(path)
    content = path.read_bytes()
    total = count_calls(monkeypatch, "write", path)
    original = os.write
    for short in range(total):
        calls = -1

        def write(descriptor, data, short=short):
            nonlocal calls
            calls += 1
            return original(descriptor, data[: max(1, len(data) // 3)] if calls == short else data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            write_model(path)
        assert path.read_bytes() == content


def test_a_short_write_and_then_a_full_disk(monkeypatch, old):
    path, content = old
    original = os.write
    calls = 0

    def write(descriptor, data):
        nonlocal calls
        calls += 1
        if calls < 3:
            return original(descriptor, data)
        if calls == 3:
            return original(descriptor, data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(
        ConversionError, match=r"cannot be written after 656 bytes: No space left on device; the file needs"
    ):
        write_model(path)
    assert path.read_bytes() == content


def test_a_write_that_never_ends_is_an_error(monkeypatch, old):
    path, content = old
    monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
    with pytest.raises(ConversionError, match="cannot be written after 0 bytes: the system wrote nothing"):
        write_model(path)
    assert path.read_bytes() == content
    assert names(path.parent) == ["model.gguf"]


def test_a_rename_that_fails(monkeypatch, old):
    path, content = old

    def fail(self, target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(ConversionError, match="cannot be finished: Input/output error; the file needs 2720 bytes"):
            write_model(path)
    assert path.read_bytes() == content
    assert names(path.parent) == ["model.gguf"]


def test_a_disk_with_too_little_room_refuses_up_front(monkeypatch, old):
    path, content = old
    real = os.statvfs(path.parent)
    fields = list(real)
    fields[4] = 2719 // real.f_frsize  # f_bavail

    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    monkeypatch.setattr(os, "write", lambda *_: pytest.fail("nothing is to be written"))
    with pytest.raises(ConversionError, match=r"the file needs 2720 bytes \(2\.7 KiB\), and the disk has 0 bytes free"):
        write_model(path)
    assert path.read_bytes() == content
    assert names(path.parent) == ["model.gguf"]


def test_a_folder_that_may_not_be_written(monkeypatch, tmp_path):
    def fail(*arguments):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ConversionError, match="cannot be made: Permission denied"):
        write_model(tmp_path / "model.gguf")


def test_leftovers_of_dead_runs_are_removed_and_no_others(tmp_path):
    path = tmp_path / "model.gguf"
    dead = [tmp_path / ".model.gguf.0123abcd.partial", tmp_path / ".model.gguf.ffffffff.partial"]
    others = [
        tmp_path / ".model.gguf.0123abcd.partial.gguf",
        tmp_path / ".model.gguf.q4.0123abcd.partial",
        tmp_path / ".model.gguf.0123ABCD.partial",
        tmp_path / "model.gguf.0123abcd.partial",
        tmp_path / ".modelXgguf.0123abcd.partial",
    ]
    for file in (*dead, *others):
        file.write_bytes(b"left")
    link = tmp_path / ".model.gguf.00000000.partial"
    link.symlink_to(others[0])
    with GgufWriter(path) as living:
        living.add_tensor("a", BlockType.F32, (4,))
        living.begin()
        assert not any(file.exists() for file in dead)
        temporary = [name for name in names(tmp_path) if name not in {file.name for file in (*others, link)}]
        assert len(temporary) == 1  # that of the run that lives
        write_model(path)  # a second run for the same target
        assert (tmp_path / temporary[0]).exists()
        living.write("a", np.zeros(4, np.float32))
    assert names(tmp_path) == sorted(["model.gguf", link.name, *(file.name for file in others)])
    with GgufFile.open(path) as file:
        assert list(file.tensors) == ["a"]  # the last to finish


ENDLESS = """
import sys
import numpy as np
from edgert_quant.blocks.types import BlockType
from edgert_quant.gguf import GgufWriter
print("ready", flush=True)
for number in range(1_000_000):
    with GgufWriter(sys.argv[1]) as writer:
        writer.add_tensor("a", BlockType.F32, (64, 1024))
        writer.begin()
        for row in range(64):
            writer.write("a", np.full(1024, number, np.float32))
"""


def test_a_killed_run_leaves_a_whole_file_and_a_later_one_cleans_up(tmp_path):
    path = tmp_path / "model.gguf"
    write_model(path)
    chance = random.Random(7)
    left_over = 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, env=environment(), text=True
        )
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
        with GgufFile.open(path) as file:  # the old one or a new one, and whole
            for name in file.tensors:
                assert len(np.unique(file.read(name).view(np.float32))) == 1
        temporary = [name for name in names(tmp_path) if name != "model.gguf"]
        assert len(temporary) <= 1
        left_over += len(temporary)
    assert left_over, "no run was killed while it wrote"
    write_model(path)
    assert names(tmp_path) == ["model.gguf"]


FULL = """
import json, os, sys
import numpy as np
from edgert_models.errors import ConversionError
from edgert_quant.blocks.types import BlockType
from edgert_quant.gguf import GgufFile, GgufWriter

folder = sys.argv[1]
path = os.path.join(folder, "model.gguf")
messages = []

def write(rows, meanwhile=lambda: None):
    with GgufWriter(path) as writer:
        writer.add_tensor("a", BlockType.F32, (rows, 1024))
        writer.begin()
        meanwhile()
        for row in range(rows):
            writer.write("a", np.full(1024, rows, np.float32))

def fill():  # somebody else takes the room after it was counted
    with open(os.path.join(folder, "other"), "wb") as other:
        other.write(bytes(600 << 10))

write(64)
for rows, meanwhile in ((1024, lambda: None), (128, fill)):
    try:
        write(rows, meanwhile)
        messages.append("")
    except ConversionError as error:
        messages.append(str(error))
with GgufFile.open(path) as file:
    whole = bool((file.read("a").view(np.float32) == 64).all())
print(json.dumps([messages, whole, sorted(os.listdir(folder))]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs of 1 MiB")
def test_a_disk_that_is_really_full(tmp_path):
    command = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, "sh", str(tmp_path), sys.executable, FULL],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode and not result.stdout and ("unshare" in result.stderr or "mount" in result.stderr):
        pytest.skip(f"no file system can be mounted here: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr
    (up_front, midway), whole, left = json.loads(result.stdout)
    assert up_front.startswith(f"{tmp_path}/model.gguf: the file needs 4194400 bytes (4.0 MiB), and the disk has ")
    assert "cannot be written after " in midway
    assert "No space left on device; the file needs 524384 bytes (512.1 KiB), and the disk has " in midway
    assert whole
    assert left == ["model.gguf", "other"]
