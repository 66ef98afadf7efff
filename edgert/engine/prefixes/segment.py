"""A file of prefixes: several contents with their names, most often neighbours in a text, which are read together.

A segment is: magic, the number of contents and CRC-32 of the entries (4 bytes each), an entry for each content (name,
bytes, CRC-32), then the contents one after the other. All integers are little-endian. CRC-32 (as in zlib and PNG) finds
what disks, cuts and mistakes change; against whoever may write in the folder nothing would help.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Content = tuple[bytes, Bytes]
"""A name of 32 bytes, and what is kept under it."""

MAGIC = b"EDGERTP2"
MOST = 64
"""Contents of one segment."""
_HEAD = np.dtype([("magic", "S8"), ("count", "<u4"), ("crc", "<u4")])
_ENTRY = np.dtype([("name", "V32"), ("bytes", "<u8"), ("crc", "<u4")])


def segment_bytes(contents: Sequence[Content]) -> int:
    """The size of a segment of these contents."""
    return _HEAD.itemsize + sum(_ENTRY.itemsize + content.nbytes for _, content in contents)


def write_segment(file: BinaryIO, contents: Sequence[Content]) -> None:
    """Write a segment of at most `MOST` contents."""
    entries = np.zeros(len(contents), _ENTRY)
    for entry, (name, content) in zip(entries, contents, strict=True):
        entry["name"], entry["bytes"], entry["crc"] = np.void(name), content.nbytes, _crc(content)
    head = np.array([(MAGIC, len(contents), _crc(entries))], _HEAD)
    file.write(head.tobytes() + entries.tobytes())
    for _, content in contents:
        file.write(np.ascontiguousarray(content).data)


class Segment:
    """A segment that is open for reading. OSError where it cannot be opened, ValueError where it is none."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self._file = os.fdopen(os.open(path, flags), "rb", buffering=0)
        try:
            self._places = self._index()
        except BaseException:
            self.close()
            raise

    def read(self, name: bytes) -> Bytes | None:
        """A content, uint8 [bytes]; None where it is not here, or not what was written."""
        if name not in self._places:
            return None
        start, size, crc = self._places[name]
        content = np.empty(size, np.uint8)
        try:
            self._file.seek(start)
            read = self._file.readinto(content.data)
        except OSError:
            return None
        return content if read == size and _crc(content) == crc else None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _index(self) -> dict[bytes, tuple[int, int, int]]:
        """Where each content begins, its bytes and CRC-32."""
        begin = self._file.read(_HEAD.itemsize + MOST * _ENTRY.itemsize)
        if len(begin) < _HEAD.itemsize:
            raise ValueError("it is cut")
        magic, count, crc = np.frombuffer(begin, _HEAD, 1)[0].tolist()
        if magic != MAGIC or not 0 < count <= MOST or len(begin) < (start := _HEAD.itemsize + count * _ENTRY.itemsize):
            raise ValueError("it does not begin as a segment does")
        entries = np.frombuffer(begin, _ENTRY, count, _HEAD.itemsize)
        if _crc(entries) != crc:
            raise ValueError("its entries have been changed")
        places = {}
        for name, size, each in entries.tolist():
            places[name] = start, size, each
            start += size
        if start != os.fstat(self._file.fileno()).st_size:
            raise ValueError("it is cut, or goes on")
        return places


def _crc(array: NDArray[np.generic]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)
