"""Reading files that may be hostile, or change while they are read: regular files only, never fewer bytes than asked.

Model files are read with `preadv` into buffers of ours. A memory map of a file that someone truncates kills the process
with SIGBUS on the next touch; a read past the new end is an ordinary error.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edgert_models.errors import FileFormatError, RequestError

_LARGEST_READ = 1 << 30  # Linux transfers at most 2 GiB - 4 KiB per call


def human_bytes(count: int) -> str:
    """A byte count for messages, as in `1536 bytes (1.5 KiB)`."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{count} bytes" if unit == "bytes" else f"{count} bytes ({value:.1f} {unit})"


def quoted(text: str, limit: int = 80) -> str:
    """Text from a file, made safe for a one-line message: control characters escaped, long text cut."""
    return repr(text if len(text) <= limit else text[:limit] + "…")


def expanded(path: str | Path) -> Path:
    """With the home in place of `~`; as it is where there is no such home (pathlib's own way of it raises there)."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def read_text(path: str | Path, parameter: str, what: str = "") -> str:
    """The text of a small file (or pipe) that the user names, for `parameter`. RequestError begins with `what` (such as
    an option) and the path where it cannot be read, or is no UTF-8 text.
    """
    named = f"{what} {path}".lstrip()
    try:
        return Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{named} is no UTF-8 text (byte {error.start})", parameter=parameter) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RequestError(f"{named}: {reason}", parameter=parameter) from None


class InputFile:
    """A regular file opened for reading; `size` is its length in bytes when it was opened.

    Raises `RequestError` when there is no such file or it may not be read, `FileFormatError` when it is a folder, a
    pipe or a device.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None
        try:
            # O_NONBLOCK: opening a pipe that nobody writes to must not wait.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise RequestError(f"{self.path}: cannot be opened: {reason}", parameter="path") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise FileFormatError(self.path, f"is {kind}")
        self._descriptor = descriptor
        self.size = status.st_size

    def fileno(self) -> int:
        """The file descriptor; `RequestError` once the file is closed."""
        if self._descriptor is None:
            raise RequestError(f"{self.path}: the file is closed")
        return self._descriptor

    def read_into(self, buffer: memoryview, offset: int, field: str) -> None:
        """Fills `buffer` (contiguous bytes) from `offset`; `FileFormatError` naming `field` if the file ends early."""
        descriptor = self.fileno()
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(descriptor, [buffer[done : done + _LARGEST_READ]], offset + done)
            except OSError as error:
                reason = f"cannot be read: {error.strerror}"
                raise FileFormatError(self.path, reason, offset=offset + done, field=field) from error
            if count == 0:
                reason = f"the file ends here, {len(buffer) - done} bytes too early: was it cut after it was opened?"
                raise FileFormatError(self.path, reason, offset=offset + done, field=field)
            done += count

    def read(self, offset: int, count: int, field: str) -> bytes:
        """Reads `count` bytes from `offset`, and all of them; the caller has checked `count` against `size`."""
        data = bytearray(count)
        self.read_into(memoryview(data), offset, field)
        return bytes(data)

    def check_size(self) -> None:
        """`FileFormatError` when the file has become shorter since it was opened."""
        size = os.fstat(self.fileno()).st_size
        if size < self.size:
            raise FileFormatError(self.path, f"had {self.size} bytes when it was opened and has {size} now")

    def close(self) -> None:
        """Closes the file; closing twice is fine."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
