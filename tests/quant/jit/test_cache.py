"""The cache of object files: what is trusted, what is rebuilt, and what a warm process does not import."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from edgert_quant.jit import cache

KERNEL = """
from edgert_quant.jit import kernel
import {helper} as helper
STEP = {step}
add = helper.add

@kernel
def advance(x: int) -> int:
    return add(x, STEP)
"""
HELPER = """
from edgert_quant.jit import device

@device
def add(x, y):
    return x + y{extra}
"""
RUN = """
import sys, warnings
warnings.simplefilter("always")
import {module}
print({module}.advance(40), "numba" in sys.modules)
"""


CLASSES = """
from edgert_quant.jit import ir_kernel
import sample_helper as helper

class Adder:
    def emit(self, b, x):
        return b.add(x, x.type(self.step()))

    @staticmethod
    def step():
        return helper.steps()

@ir_kernel()
def advance(b, x):
    return Adder().emit(b, x)
"""
CACHED = """
from functools import cache

@cache
def steps():
    return {step}
"""


class Project:
    """A module with a kernel, and processes that run it against one cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        # Python's own cache takes a file that was written twice in a second, in one size, for the same.
        self.environment = {**os.environ, "EDGERT_CACHE_DIR": str(self.cache), "PYTHONDONTWRITEBYTECODE": "1"}
        self.environment["PYTHONPATH"] = os.pathsep.join([str(folder), *(path for path in sys.path if path)])
        self.write()

    def write(self, step: int = 2, extra: str = "") -> None:
        (self.folder / "sample_module.py").write_text(KERNEL.format(step=step, helper="sample_helper"))
        (self.folder / "sample_helper.py").write_text(HELPER.format(extra=extra))

    def start(self, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN.format(module="sample_module")]
        merged = {**self.environment, **environment}
        return subprocess.Popen(command, env=merged, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, **environment: str) -> tuple[int, bool, str]:
        """The result, whether it was compiled, and what was printed to stderr."""
        out, errors = self.start(**environment).communicate(timeout=120)
        assert out, errors
        value, imported = out.split()
        return int(value), imported == "True", errors

    def file(self) -> Path:
        (found,) = (self.cache / "kernels").glob("*.o")
        return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_warm_process_never_imports_numba(project: Project) -> None:
    assert project.run() == (42, True, "")
    assert project.run() == (42, False, "")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_files_are_private(project: Project) -> None:
    project.run()
    assert project.file().stat().st_mode & 0o777 == 0o600
    assert project.file().parent.stat().st_mode & 0o777 == 0o700


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_magic(path: Path) -> None:
    path.write_bytes(b"EDGERTJ0" + path.read_bytes()[8:])


def damage_key(path: Path) -> None:
    """A whole file, under the right name, made for something else."""
    code = cache._unwrap(path.read_bytes(), path.read_bytes()[48:].partition(b"}")[0].decode() + "}")
    assert code
    path.write_bytes(cache._wrap("another kernel", code))


def damage_writable_by_others(path: Path) -> None:
    path.chmod(0o666)


def damage_owner(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, 12345)


def damage_link(path: Path) -> None:
    moved = path.with_name("elsewhere")
    path.rename(moved)
    path.symlink_to(moved)


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_file_that_is_not_exactly_ours_is_rebuilt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage) -> None:
    monkeypatch.setenv("EDGERT_CACHE_DIR", str(tmp_path))
    key = '{"a kernel":1}'
    cache.store("sample", key, b"object code" * 10)
    assert cache.load("sample", key) == b"object code" * 10
    path = cache._path("sample", key)
    damage(path)
    assert cache.load("sample", key) is None
    cache.store("sample", key, b"new")
    assert cache.load("sample", key) == b"new"
    assert [file.suffix for file in path.parent.iterdir() if file.name != "elsewhere"] == [".o"]


def test_damage_is_repaired_by_the_process_that_meets_it(project: Project) -> None:
    project.run()
    damage_bit(project.file())
    assert project.run() == (42, True, "")
    assert project.run() == (42, False, "")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_folder_that_others_can_write_is_not_used(project: Project) -> None:
    project.run()
    project.file().parent.chmod(0o777)
    value, compiled, errors = project.run()
    assert (value, compiled) == (42, True)
    assert errors.count("CacheWarning") == 1
    assert "is not a folder that only this user can write" in errors


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")
def test_two_processes_do_not_compile_the_same_kernel(project: Project) -> None:
    """While another process compiles it, this one waits, and takes what the other has stored."""
    project.run()
    stored = project.file().rename(project.file().with_suffix(".away"))
    with (stored.parent / "sample_module.advance.lock").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = project.start()
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3)
        stored.rename(stored.with_suffix(".o"))
    out, errors = waiting.communicate(timeout=120)
    assert (out.split(), errors) == (["42", "False"], "")


def test_changed_sources_are_compiled_anew(project: Project) -> None:
    assert project.run()[:2] == (42, True)
    project.write(step=3)
    assert project.run()[:2] == (43, True)
    project.write(step=3, extra=" + 100")
    assert project.run()[:2] == (143, True)
    project.write(step=2)
    assert project.run()[:2] == (42, False)


def test_methods_are_sources_too(project: Project) -> None:
    """And so is what they name, through a decorator."""
    (project.folder / "sample_module.py").write_text(CLASSES)
    for step in (2, 3):
        (project.folder / "sample_helper.py").write_text(CACHED.format(step=step))
        assert project.run()[0] == 40 + step


def test_another_cpu_is_another_key(project: Project) -> None:
    project.run()
    assert project.run(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")[1]
    assert len(list((project.cache / "kernels").glob("*.o"))) == 2


def test_processes_compile_at_once(project: Project) -> None:
    running = [project.start() for _ in range(3)]
    for process in running:
        out, errors = process.communicate(timeout=120)
        assert out.split()[0] == "42", errors
        assert errors == ""
    assert project.run() == (42, False, "")


@pytest.mark.parametrize("home", ["missing", "a file"])
def test_without_a_place_for_the_cache_it_runs_with_one_warning(project: Project, tmp_path: Path, home: str) -> None:
    # Root writes into any folder; what nobody can do is make a folder inside a file or inside /proc.
    blocked = tmp_path / "file"
    blocked.write_text("")
    place = str(blocked) if home == "a file" else "/proc/nowhere"
    value, compiled, errors = project.run(EDGERT_CACHE_DIR="", XDG_CACHE_HOME="", HOME=place)
    assert (value, compiled) == (42, True)
    assert errors.count("CacheWarning") == 1
    assert "set EDGERT_CACHE_DIR to a folder of your own" in errors


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write read-only folders")
def test_a_read_only_home(project: Project, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    value, compiled, errors = project.run(EDGERT_CACHE_DIR="", XDG_CACHE_HOME="", HOME=str(home))
    assert (value, compiled) == (42, True)
    assert errors.count("CacheWarning") == 1


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG folders")
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGERT_CACHE_DIR", "/a")
    assert cache.cache_folder() == Path("/a/kernels")
    monkeypatch.delenv("EDGERT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache.cache_folder() == Path("/b/edgert/kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/c")
    assert cache.cache_folder() == Path("/c/.cache/edgert/kernels")


def test_old_versions_are_pruned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGERT_CACHE_DIR", str(tmp_path))
    for i in range(cache.KEPT_VERSIONS + 5):
        cache.store("sample", f"key {i}", b"code")
        path = cache._path("sample", f"key {i}")
        os.utime(path, (i, i))
    assert len(list(cache.cache_folder().glob("sample-*.o"))) == cache.KEPT_VERSIONS
    assert cache.load("sample", f"key {cache.KEPT_VERSIONS + 4}") == b"code"
