"""Bytes by name in the files of a folder, as many as a cap allows. Nothing in it is trusted.

A file is: magic, its name (32 bytes), BLAKE2b of what follows (32 bytes), content. It is written beside its place and
moved there, so that it is whole or not at all; one that is not exactly what its name says is deleted, and was never
there. Several processes may share a folder: the bytes of all files are counted in one, `size`, under a lock, and who
would exceed the cap deletes what was used longest ago, whoever wrote it. Where there are no locks (Windows) each
process counts as if it were alone.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from edgert_models.errors import RequestError
from numpy.typing import NDArray

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MAGIC = b"EDGERTP1"
HEADER_BYTES = len(MAGIC) + 2 * 32
BLOCK, STATE = "kv", "state"
"""Kinds of content: each name may have one of each."""
_ROOM = 0.9  # of the cap is left filled where room is made


class Store:
    """The files of `folder`, at most `capacity` bytes. Any thread may call; nothing raises but the making of it:
    RequestError where the folder cannot be used, or others could write there.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder, self.capacity = folder, capacity
        self.damaged = 0
        """Files that were not what their names say."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
        except OSError as error:
            raise RequestError(
                f"prefixes cannot be kept in {folder}: {error.strerror}", parameter="prefix_disk"
            ) from None
        shared = sys.platform != "win32" and (status.st_uid != os.geteuid() or status.st_mode & 0o022)
        if not stat.S_ISDIR(status.st_mode) or shared:
            reason = f"prefixes cannot be kept in {folder}: it is not a folder that only this user can write"
            raise RequestError(reason, parameter="prefix_disk")
        with self._counting() as count:  # what was deleted by hand, or by a process that was killed, is noticed here
            count[0] = self._fit(0)

    def has(self, name: bytes, kind: str) -> bool:
        """Whether there is such a file; it may still turn out to be damaged."""
        return self._path(name, kind).exists()

    def read(self, name: bytes, kind: str) -> NDArray[np.uint8] | None:
        """The content, uint8 [bytes], or None where there is none that is whole and of this name."""
        path = self._path(name, kind)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        except OSError:
            return None
        try:  # few calls: there are many files, and where each call takes long (networks, sandboxes) that counts
            data = np.frombuffer(os.read(descriptor, os.fstat(descriptor).st_size), np.uint8)
        except OSError:
            data = np.empty(0, np.uint8)
        finally:
            os.close(descriptor)
        content = data[HEADER_BYTES:]
        if data[:HEADER_BYTES].tobytes() == _header(name, content):
            return content
        self.damaged += 1
        with suppress(OSError):
            path.unlink()
        return None

    def write(self, name: bytes, kind: str, content: NDArray[np.uint8]) -> bool:
        """Keep content under a name; false where it cannot be: it is larger than the cap, or the disk is full."""
        path, size = self._path(name, kind), HEADER_BYTES + content.nbytes
        if size > self.capacity:
            return False
        temporary = None
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with self._counting() as count:
                count[0] = self._fit(size) if count[0] + size > self.capacity else count[0]
                descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)  # mode 0600
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_header(name, content))
                    file.write(np.ascontiguousarray(content).data)
                count[0] += 0 if path.exists() else size
                Path(temporary).replace(path)
        except OSError:
            if temporary is not None:
                with suppress(OSError):
                    Path(temporary).unlink()
            return False
        return True

    def touch(self, name: bytes, kind: str) -> None:
        """It has been used: others are deleted first."""
        with suppress(OSError):
            os.utime(self._path(name, kind))

    @property
    def size(self) -> int:
        """Bytes of all files, whoever wrote them, as they are counted."""
        with suppress(OSError):
            return int.from_bytes((self.folder / "size").read_bytes()[:8], "little")
        return 0

    def _path(self, name: bytes, kind: str) -> Path:
        text = name.hex()
        return self.folder / text[:2] / f"{text}.{kind}"

    @contextmanager
    def _counting(self) -> Iterator[list[int]]:
        """The count of bytes, to be changed while nobody else does."""
        descriptor = os.open(self.folder / "size", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            count = [int.from_bytes(os.read(descriptor, 8), "little")]
            yield count
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, count[0].to_bytes(8, "little"))
        finally:
            os.close(descriptor)

    def _fit(self, size: int) -> int:
        """Count all files, and delete the oldest where there is no room for `size` bytes more; what is left."""
        found: list[tuple[int, int, Path]] = []
        for path in self.folder.glob("??/*"):
            with suppress(OSError):
                status = path.lstat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(each for _, each, _ in found)
        if total + size <= self.capacity:
            return total
        room = int(self.capacity * _ROOM) - size
        for _, each, path in sorted(found):
            if total <= max(0, room):
                break
            with suppress(OSError):
                path.unlink()
                total -= each
        return total


def _header(name: bytes, content: NDArray[np.uint8]) -> bytes:
    digest = hashlib.blake2b(np.ascontiguousarray(content).data, digest_size=32).digest()
    return MAGIC + name + digest
