"""Bytes by name in the files of a folder, as many as a cap allows. Nothing in it is trusted.

A file is a segment of several contents, with a hard link for each name (where the file system has none, a file of its
own): whoever looks for a name finds the segment, and its neighbours with it. A segment is written beside its place and
moved there, so that it is whole or not at all; a name under which there is not exactly what was written is deleted, and
was never there. Several processes may share a folder: the bytes of all files are counted in one, `size`, under a lock,
and who would exceed the cap deletes what was used longest ago, whoever wrote it. Where there are no locks (Windows)
each process counts as if it were alone.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edgert_models.errors import RequestError

from edgert.engine.prefixes.segment import MOST, Bytes, Content, Segment, segment_bytes, write_segment

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BLOCK, WINDOW, STATE = KINDS = "kv", "window", "state"
"""Kinds of content: each name may have one of each."""
_ROOM = 0.9  # of the cap is left filled where room is made
_SEGMENT_BYTES = 1 << 22  # of one file, unless a single content has more
_LEAST_SEGMENTS = 8  # that the cap has room for


class Store:
    """The files of `folder`, at most `capacity` bytes. Any thread may call; nothing raises but the making of it:
    RequestError where the folder cannot be used, or others could write there.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder, self.capacity = folder, capacity
        self.damaged = 0
        """Files that were not what their names say."""
        self._links = True
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
        return os.path.exists(self._path(name, kind))  # noqa: PTH110 - three times as quick, and there are many

    def read(self, name: bytes, kind: str) -> Bytes | None:
        """The content, uint8 [bytes], or None where there is none that is whole and of this name."""
        with self.reading(kind) as reader:
            return reader.read(name)

    @contextmanager
    def reading(self, kind: str) -> Iterator[Reader]:
        """Reads contents one after the other. What has been read was used: in the end others are deleted first."""
        reader = Reader(self, kind)
        try:
            yield reader
        finally:
            reader.close()

    def write(self, contents: Sequence[Content], kind: str) -> int:
        """Keep contents under their names, in as few files as they fit in; how many of them are there now. Those are
        not that are larger than the cap, or for which the disk has no room.
        """
        most, kept = min(_SEGMENT_BYTES, self.capacity // _LEAST_SEGMENTS), 0
        segment: list[Content] = []
        for each in contents:
            if segment and (len(segment) == MOST or segment_bytes([*segment, each]) > most or not self._links):
                kept += self._write(segment, kind)
                segment = []
            segment.append(each)
        return kept + self._write(segment, kind) if segment else kept

    def touch(self, name: bytes, kind: str) -> None:
        """It has been used: others are deleted first."""
        with suppress(OSError):
            os.utime(self._path(name, kind))

    def discard(self, name: bytes, kind: str, *, whole: bool = False) -> None:
        """What is there under a name is not what it should be, nor what is under others in the same file if `whole`."""
        self.damaged += 1
        path = self._path(name, kind)
        with suppress(OSError):
            file = _identity(path.lstat())
            for each in self._files() if whole else [path]:
                if _identity(each.lstat()) == file:
                    each.unlink()

    @property
    def size(self) -> int:
        """Bytes of all files, whoever wrote them, as they are counted."""
        with suppress(OSError):
            return int.from_bytes((self.folder / "size").read_bytes()[:8], "little")
        return 0

    def _path(self, name: bytes, kind: str) -> Path:
        text = name.hex()
        return self.folder / text[:2] / f"{text}.{kind}"

    def _files(self) -> list[Path]:
        return list(self.folder.glob("??/*"))

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

    def _write(self, contents: Sequence[Content], kind: str) -> int:
        """Write one segment of what is not there yet; how many contents are there now."""
        size, temporary = segment_bytes(contents), None
        if size > self.capacity:
            return 0
        try:
            with self._counting() as count:
                new = [each for each in contents if not self.has(each[0], kind)]
                if not new:
                    return len(contents)
                size = segment_bytes(new)
                count[0] = self._fit(size) if count[0] + size > self.capacity else count[0]
                paths = [self._path(name, kind) for name, _ in new]
                for folder in {path.parent for path in paths}:
                    folder.mkdir(mode=0o700, exist_ok=True)
                descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=paths[0].parent)  # mode 0600
                with os.fdopen(descriptor, "wb") as file:
                    write_segment(file, new)
                if self._linked(temporary, paths[1:]):
                    count[0] += size
                    Path(temporary).replace(paths[0])
                    return len(contents)
        except OSError:
            new = []
        if temporary is not None:
            with suppress(OSError):
                Path(temporary).unlink()
        return sum(self._write([each], kind) for each in new)

    def _linked(self, file: str, paths: Sequence[Path]) -> bool:
        """Give a file these names, too; false where the file system cannot."""
        try:
            for path in paths:
                os.link(file, path)
        except OSError:
            for path in paths:
                path.unlink(missing_ok=True)
            self._links = False
        return self._links or not paths

    def _fit(self, size: int) -> int:
        """Count all files, and delete the oldest where there is no room for `size` bytes more; what is left."""
        names: dict[tuple[int, int], list[Path]] = {}  # by file: links have its time and size in common
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for path in self._files():
            with suppress(OSError):
                status = path.lstat()
                file = _identity(status)
                names.setdefault(file, []).append(path)
                found[file] = status.st_mtime_ns, status.st_size
        total = sum(each for _, each in found.values())
        if total + size <= self.capacity:
            return total
        room = int(self.capacity * _ROOM) - size
        for file, (_, each) in sorted(found.items(), key=lambda item: item[1]):
            if total <= max(0, room):
                break
            with suppress(OSError):
                for path in names[file]:
                    path.unlink()
                total -= each
        return total


class Reader:
    """Reads contents of one kind; a segment stays open while they come from it. See `Store.reading`."""

    def __init__(self, store: Store, kind: str) -> None:
        self._store, self._kind = store, kind
        self._segment: Segment | None = None
        self._used: list[bytes] = []  # a name of each segment

    def read(self, name: bytes) -> Bytes | None:
        """See `Store.read`."""
        content = self._segment.read(name) if self._segment is not None else None
        # What is damaged in a segment may have been written anew, and then has a file of its own.
        return self._open(name) if content is None else content

    def _open(self, name: bytes) -> Bytes | None:
        self._close_segment()
        try:
            self._segment = Segment(self._store._path(name, self._kind))
        except OSError:
            return None
        except ValueError:
            self._store.discard(name, self._kind, whole=True)
            return None
        content = self._segment.read(name)
        if content is None:
            self._store.discard(name, self._kind)
        else:
            self._used.append(name)
        return content

    def close(self) -> None:
        """Nothing more is read."""
        self._close_segment()
        for name in reversed(self._used):  # what begins a text is the last to go
            self._store.touch(name, self._kind)

    def _close_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None


def _identity(status: os.stat_result) -> tuple[int, int]:
    """What the names of one file have in common."""
    return status.st_dev, status.st_ino
