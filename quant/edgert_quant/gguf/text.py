"""Strings of a header, kept as the file has them until somebody asks.

A vocabulary of 150,000 tokens and as many merges is checked in bulk when the file is opened, and costs nothing more
where only the shapes of tensors are wanted.
"""

from __future__ import annotations

import codecs

import numpy as np

_PIECE = 1 << 20


def _invalid_byte(data: bytes | bytearray) -> int | None:
    """The offset at which `data` stops being UTF-8, or None. In pieces, as decoded text may be four times as large."""
    if data.isascii():
        return None
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), _PIECE):
        try:
            decoder.decode(bytes(data[start : start + _PIECE]), final=start + _PIECE >= len(data))
        except UnicodeDecodeError as error:
            return max(0, start + error.start - (len(error.object) - len(data[start : start + _PIECE])))
    return None


class LazyText:
    """One string, as UTF-8."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def invalid_byte(self) -> int | None:
        """The offset of the first byte that is no UTF-8, or None."""
        return _invalid_byte(self._data)

    def load(self) -> str:
        """The string."""
        return self._data.decode("utf-8")


class LazyStrings:
    """An array of strings: `data` holds each as 8 bytes of length and then UTF-8, `ends` where each one ends in `data`.

    The lengths in `data` are overwritten with zeros, so that what remains is text between runs of eight NULs: one pass
    in C checks it, and one `split` makes the list.
    """

    def __init__(self, data: bytearray, ends: np.ndarray) -> None:
        count = len(ends)
        starts = np.zeros(count, ends.dtype)
        starts[1:] = ends[:-1]
        view = np.frombuffer(data, np.uint8)
        for _ in range(4):  # a string is below 2^32 bytes: the upper half of its length is zero as it is
            view[starts] = 0
            starts += 1
        del view  # a bytearray with a view on it cannot be resized
        self._data = data
        self._count = count
        # The ends are needed only where a string has NULs of its own.
        self._ends = None if data.count(0) == 8 * count else ends

    def __len__(self) -> int:
        return self._count

    def invalid_byte(self) -> int | None:
        """The offset in the array's data of a byte that is no UTF-8, or None."""
        return _invalid_byte(self._data)

    def load(self) -> list[str]:
        """The list of strings."""
        if self._ends is None:
            return self._data.decode("utf-8").split("\0" * 8)[1:]
        strings: list[str] = []
        start = 0
        for end in self._ends.tolist():
            strings.append(self._data[start + 8 : end].decode("utf-8"))
            start = end
        return strings
