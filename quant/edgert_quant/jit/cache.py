"""Object files in a folder of the user's. Nothing in it is trusted: a file that is not exactly ours is compiled anew.

A file is: magic, SHA-256 of all that follows it, length of the key (8 bytes, little-endian), key (UTF-8), object code.
The key is the text that identifies the kernel, its sources, the compiler and the CPU; it must match to the byte.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MAGIC = b"EDGERTJ1"
HEADER_BYTES = len(MAGIC) + 32 + 8
MAX_FILE_BYTES = 64 << 20
KEPT_VERSIONS = 8
"""Object files kept of one kernel: other versions, other CPUs sharing the home folder."""
PATIENCE = 120.0
"""Seconds to wait for another process that compiles the same kernel; it may have been stopped."""


class CacheWarning(RuntimeWarning):
    """The kernel cache cannot be used; kernels are compiled anew in every process."""


def cache_folder() -> Path:
    """Where object files go: $EDGERT_CACHE_DIR, else `edgert` in the platform's cache folder. `RuntimeError` without a
    home.
    """
    if folder := os.environ.get("EDGERT_CACHE_DIR"):
        return Path(folder) / "kernels"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        parent = Path(base) if base else Path.home() / "AppData" / "Local"
        return parent / "edgert" / "Cache" / "kernels"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgert" / "kernels"
    base = os.environ.get("XDG_CACHE_HOME")
    parent = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return parent / "edgert" / "kernels"


def load(name: str, key: str) -> bytes | None:
    """The object code stored for `key`, or None if there is none that is whole, ours, and for exactly this key."""
    try:
        path = _path(name, key)
        if not _is_private(path.parent.lstat()):
            return None
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, RuntimeError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _is_private(status) or status.st_size > MAX_FILE_BYTES:
            return None
        try:
            data = file.read(MAX_FILE_BYTES)
        except OSError:
            return None
    return _unwrap(data, key)


def store(name: str, key: str, code: bytes) -> None:
    """Keep object code for later processes, atomically. A folder that cannot be written is one warning, not an
    error.
    """
    temporary = None
    try:
        path = _path(name, key)
        _make_folder(path.parent)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)  # mode 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(_wrap(key, code))
        Path(temporary).replace(path)
        temporary = None
        _prune(path.parent, name)
    except (OSError, RuntimeError) as error:
        _warn_once(error)
    finally:
        if temporary is not None:
            with suppress(OSError):
                Path(temporary).unlink()


@contextmanager
def compiling(name: str) -> Iterator[None]:
    """Nobody else compiles this kernel meanwhile: who had to wait finds it in the cache.

    Where there are no locks (no folder, Windows, some network file systems), or the other takes too long, both compile:
    a waste, and no harm.
    """
    descriptor = None
    try:
        with suppress(OSError, RuntimeError):
            folder = cache_folder()
            _make_folder(folder)
            descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            _lock(descriptor)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    if fcntl is None:
        return
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return


def _wrap(key: str, code: bytes) -> bytes:
    text = key.encode()
    body = len(text).to_bytes(8, "little") + text + code
    return MAGIC + hashlib.sha256(body).digest() + body


def _unwrap(data: bytes, key: str) -> bytes | None:
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        return None
    digest, body = data[len(MAGIC) : len(MAGIC) + 32], data[len(MAGIC) + 32 :]
    if hashlib.sha256(body).digest() != digest:
        return None
    text = key.encode()
    if int.from_bytes(body[:8], "little") != len(text) or body[8 : 8 + len(text)] != text:
        return None
    return body[8 + len(text) :]


def _path(name: str, key: str) -> Path:
    return cache_folder() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.o"


def _is_private(status: os.stat_result) -> bool:
    """Ours, and writable by nobody else (Windows protects the profile folder by itself)."""
    if sys.platform == "win32":
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or not _is_private(status):
        raise PermissionError(f"{folder} is not a folder that only this user can write")


def _prune(folder: Path, name: str) -> None:
    def age(path: Path) -> float:
        with suppress(OSError):
            return -path.stat().st_mtime
        return 0.0

    for path in sorted(folder.glob(f"{name}-*.o"), key=age)[KEPT_VERSIONS:]:
        with suppress(OSError):
            path.unlink()


_warned = False


def _warn_once(error: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"kernels are compiled anew in every process: the cache cannot be written ({error}); "
            "set EDGERT_CACHE_DIR to a folder of your own",
            CacheWarning,
            stacklevel=2,
        )
