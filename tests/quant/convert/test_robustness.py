"""Kills, full disks, interrupts and memory."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edgert_quant.convert import convert

from tests.quant.convert.checkpoints import load, save_zeros
from tests.support.golden import FOLDER

KILLED = """
import os, random, signal, sys, time
from edgert_quant.convert import convert
source, output, first, second = sys.argv[1:]
contents = [open(path, "rb").read() for path in (first, second)]
random.seed(5)
seen = set()
for attempt in range(30):
    if attempt == 15:
        os.unlink(output)
    child = os.fork()
    if child == 0:
        while True:
            convert(source, output, type="f32")
            convert(source, output, type="bf16")
    time.sleep(random.uniform(0.0, 0.12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if os.path.exists(output):
        with open(output, "rb") as file:
            found = file.read()
        assert found in contents, len(found)
        seen.add(contents.index(found))
    assert len(os.listdir(os.path.dirname(output))) <= 2
print(sorted(seen))
convert(source, output, type="f32")
"""


def run(program: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


def test_killed_at_random_moments(tmp_path: Path) -> None:
    convert(FOLDER / "mistral", tmp_path / "f32.gguf", type="f32")
    convert(FOLDER / "mistral", tmp_path / "bf16.gguf", type="bf16")
    target = tmp_path / "target"
    target.mkdir()
    shutil.copy(tmp_path / "f32.gguf", target / "model.gguf")
    done = run(KILLED, FOLDER / "mistral", target / "model.gguf", tmp_path / "f32.gguf", tmp_path / "bf16.gguf")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[0,", "1]"]
    assert [path.name for path in target.iterdir()] == ["model.gguf"]
    assert (target / "model.gguf").read_bytes() == (tmp_path / "f32.gguf").read_bytes()


LIMITED = """
import resource, signal, sys
from edgert_models.errors import ConversionError
from edgert_quant.convert import convert
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    convert(sys.argv[1], sys.argv[2], type="f32")
except ConversionError as error:
    print(error)
"""


def test_a_write_that_fails_half_way(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"older")
    done = run(LIMITED, FOLDER / "mistral", tmp_path / "model.gguf")
    assert done.returncode == 0, done.stderr
    assert "model.gguf: cannot be written after 50000 bytes: File too large; the file needs " in done.stdout
    assert (tmp_path / "model.gguf").read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


ON_SMALL_DISK = """
import os, subprocess, sys
from edgert_models.errors import ConversionError
from edgert_quant.convert import convert
folder = sys.argv[2]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", folder], check=True)
try:
    convert(sys.argv[1], folder + "/model.gguf", type="f32")
except ConversionError as error:
    print(error, os.listdir(folder))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here, so no small disk can be mounted")
    command = [unshare, "-rm", sys.executable, "-c", ON_SMALL_DISK, str(FOLDER / "mistral"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "model.gguf: the file needs 29" in done.stdout
    assert "and the disk has 131072 bytes (128.0 KiB) free []" in done.stdout


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int, name: str) -> None:
        if name == "blk.1.attn_k.weight":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(FOLDER / "mistral", tmp_path / "model.gguf", type="bf16", progress=interrupt)
    assert not list(tmp_path.iterdir())


MEASURED = """
import resource, sys
from edgert_quant.convert import convert
convert(sys.argv[1], sys.argv[3], type="q8_0")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert(sys.argv[2], sys.argv[3], type="q8_0")
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def test_memory_does_not_grow_with_the_largest_tensor(tmp_path: Path) -> None:
    """An embedding of 410 MB, in a file of zeros that takes no room, needs less than 130 MB."""
    config = json.loads((FOLDER / "llama-wide" / "config.json").read_text())
    shapes = {name: array.shape for name, array in load(FOLDER / "llama-wide").items()}
    shapes["model.embed_tokens.weight"] = (400_000, 256)
    save_zeros(tmp_path / "large", shapes, config | {"vocab_size": 400_000})
    done = run(MEASURED, FOLDER / "llama-wide", tmp_path / "large", tmp_path / "model.gguf")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 130e6
