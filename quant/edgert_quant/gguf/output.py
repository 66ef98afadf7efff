"""A file that appears under its name complete, or not at all.

Bytes go to a temporary file in the target's folder, `.NAME.XXXXXXXX.partial`, which is synced and renamed at the end. A
run that is killed leaves at most that file; the next run for the same target removes it. A run that still lives holds a
lock on its own, so two runs for one target do not harm each other: the last to finish wins.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from pathlib import Path
from typing import NoReturn

from edgert_models.errors import ConversionError

from edgert_quant.files import human_bytes

_LARGEST_WRITE = 1 << 30
_LONGEST_NAME = 200  # bytes; file systems allow 255, and the temporary name is longer than the target's
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EROFS}


class OutputFile:
    """A file being written. `open`, then `write` as often as needed, then `commit` or `abort`.

    A symbolic link as target is followed. Every failure of the system is a `ConversionError` that says how much room
    the file needs; the temporary file is gone then, and a file that had the name before is untouched.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.size = 0
        self.written = 0
        self._target = Path(os.path.realpath(path))
        self._temporary: Path | None = None
        self._descriptor = -1

    def open(self, size: int) -> None:
        """Makes the temporary file for `size` bytes. Refuses when the disk has less room than that."""
        self.size = size
        try:
            self._check_target()
            self._remove_stale()
            available = self._available()
            if available < size:
                raise ConversionError(
                    f"{self.path}: the file needs {human_bytes(size)}, and the disk has {human_bytes(available)} free"
                )
            self._create()
        except OSError as error:
            self._fail("cannot be made", error)

    def write(self, data: memoryview) -> None:
        """Appends bytes. After a failure the file is aborted already."""
        done = 0
        try:
            while done < len(data):
                count = os.write(self._descriptor, data[done : done + _LARGEST_WRITE])
                if count <= 0:
                    raise OSError(errno.EIO, "the system wrote nothing")
                done += count
                self.written += count
        except OSError as error:
            self._fail(f"cannot be written after {self.written} bytes", error)

    def commit(self) -> None:
        """Puts the file under its name, durably."""
        temporary = self._temporary
        assert temporary is not None, "commit before open"
        try:
            os.fsync(self._descriptor)
            with contextlib.suppress(FileNotFoundError):  # like open(), a new content keeps the mode of the old one
                os.fchmod(self._descriptor, stat.S_IMODE(self._target.stat().st_mode))
            temporary.replace(self._target)
            self._temporary = None
            self._sync_folder()
            self._close()
        except OSError as error:
            self._fail("cannot be finished", error)

    def abort(self) -> None:
        """Removes the temporary file; does nothing after `commit`."""
        with contextlib.suppress(OSError):
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)
        self._temporary = None
        with contextlib.suppress(OSError):
            self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _check_target(self) -> None:
        folder = self._target.parent
        if not folder.is_dir():
            raise ConversionError(f"{self.path}: there is no folder {folder}")
        if self._target.exists() and not self._target.is_file():
            kind = "a folder" if self._target.is_dir() else "not a regular file"
            raise ConversionError(f"{self.path}: is {kind}; name a file to write")

    def _available(self) -> int:
        room = os.statvfs(self._target.parent)
        return room.f_bavail * room.f_frsize

    def _stem(self) -> str:
        name = os.fsencode(self._target.name)
        return self._target.name if len(name) <= _LONGEST_NAME else hashlib.sha256(name).hexdigest()[:32]

    def _create(self) -> None:
        """Makes and locks the temporary file; again when a run that cleans up has removed it before it was locked."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        while True:
            temporary = self._target.with_name(f".{self._stem()}.{secrets.token_hex(4)}.partial")
            try:
                self._descriptor = os.open(temporary, flags, 0o666)  # less the umask, as open() does
            except FileExistsError:
                continue
            self._temporary = temporary
            _lock(self._descriptor)
            if os.fstat(self._descriptor).st_nlink:
                return
            self._close()

    def _remove_stale(self) -> None:
        """Removes what killed runs for this target have left. A file that is locked belongs to a run that lives."""
        pattern = re.compile(rf"\.{re.escape(self._stem())}\.[0-9a-f]{{8}}\.partial")
        with os.scandir(self._target.parent) as entries:
            names = [entry.name for entry in entries if pattern.fullmatch(entry.name)]
        for name in names:
            path = self._target.with_name(name)
            with contextlib.suppress(OSError):  # not ours to open, or gone already
                descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    status = os.fstat(descriptor)
                    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and _lock(descriptor):
                        path.unlink()
                finally:
                    os.close(descriptor)

    def _sync_folder(self) -> None:
        descriptor = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NO_SYNC:  # some file systems cannot sync a folder
                raise
        finally:
            os.close(descriptor)

    def _fail(self, what: str, error: OSError) -> NoReturn:
        self.abort()
        room = f"the file needs {human_bytes(self.size)}"
        with contextlib.suppress(OSError):
            room += f", and the disk has {human_bytes(self._available())} free"
        raise ConversionError(f"{self.path}: {what}: {error.strerror or error}; {room}") from error


def _lock(descriptor: int) -> bool:
    """Takes the lock that says "this run lives"; False when another has it, or the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def write_whole(path: str | Path, data: bytes) -> None:
    """A small file, complete or not at all; errors are those of `OutputFile`."""
    output = OutputFile(path)
    try:
        output.open(len(data))
        output.write(memoryview(data))
        output.commit()
    finally:
        output.abort()
