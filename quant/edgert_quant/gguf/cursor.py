"""Reading a GGUF header forward: every count is checked against what the file still holds, before any allocation."""

from __future__ import annotations

import struct
from typing import NoReturn

import numpy as np
from edgert_models.errors import FileFormatError

from edgert_quant.files import InputFile
from edgert_quant.gguf import layout
from edgert_quant.gguf.text import LazyStrings, LazyText

_WINDOW = 1 << 20
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Cursor:
    """A position in the header of a file, and the next bytes of it."""

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self._end = min(file.size, layout.MAX_HEADER_BYTES)
        self._window = b""
        self._start = 0  # file offset of the window
        self._at = 0  # the position, within the window
        self._strings = 0

    @property
    def offset(self) -> int:
        """The position, as an offset in the file."""
        return self._start + self._at

    @property
    def remaining(self) -> int:
        """Bytes of the file after the position."""
        return self.file.size - self.offset

    def fail(self, reason: str, field: str, offset: int | None = None) -> NoReturn:
        """Raises the `FileFormatError` for what is wrong at `offset`, or at the position."""
        raise FileFormatError(self.file.path, reason, offset=self.offset if offset is None else offset, field=field)

    def need(self, count: int, field: str) -> None:
        """Fails unless the header has `count` more bytes."""
        if count > self.remaining:
            self.fail(f"needs {count} bytes, and the file has {self.remaining} more", field)
        if count > self._end - self.offset:
            self.fail(f"the header is larger than the limit of {layout.MAX_HEADER_BYTES} bytes", field)

    def take(self, count: int, field: str) -> bytes:
        """The next `count` bytes."""
        if count > len(self._window) - self._at:
            self.need(count, field)
            if count > _WINDOW:
                data = self.file.read(self.offset, count, field)
                self._start, self._at, self._window = self.offset + count, 0, b""
                return data
            self._refill(field)
        self._at += count
        return self._window[self._at - count : self._at]

    def _refill(self, field: str) -> None:
        """Moves the window to the position."""
        self._start, self._at = self.offset, 0
        self._window = self.file.read(self._start, min(_WINDOW, self._end - self._start), field)

    def u32(self, field: str) -> int:
        """The next unsigned integer of 4 bytes."""
        value: int = _U32.unpack(self.take(4, field))[0]
        return value

    def u64(self, field: str) -> int:
        """The next unsigned integer of 8 bytes."""
        value: int = _U64.unpack(self.take(8, field))[0]
        return value

    def raw_string(self, limit: int, field: str) -> bytes:
        """The next string, as bytes of valid UTF-8."""
        start = self.offset
        length = self.u64(field)
        if length > limit:
            self.fail(f"a length of {length} bytes is above the limit of {limit}", field, start)
        return self.take(length, field)

    def name(self, limit: int, field: str) -> str:
        """The next string, where it is a short name."""
        start = self.offset
        try:
            return self.raw_string(limit, field).decode("utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"is not valid UTF-8: {error.reason}", field, start + 8 + error.start)

    def text(self, field: str) -> LazyText:
        """The next string, where it is a value: checked now, decoded when it is wanted."""
        start = self.offset
        value = LazyText(self.raw_string(layout.MAX_STRING_BYTES, field))
        if (bad := value.invalid_byte()) is not None:
            self.fail("is not valid UTF-8", field, start + 8 + bad)
        return value

    def items(self, dtype: np.dtype[np.generic], count: int, field: str) -> np.ndarray:
        """The next `count` numbers; the array is read-only."""
        if count > layout.MAX_ARRAY_ITEMS:
            self.fail(f"an array of {count} items is above the limit of {layout.MAX_ARRAY_ITEMS}", field)
        return np.frombuffer(self.take(count * dtype.itemsize, field), dtype)

    def strings(self, count: int, field: str) -> LazyStrings:
        """The next `count` strings: lengths and UTF-8 checked now, decoded when they are wanted."""
        self._strings += count
        if self._strings > layout.MAX_STRING_ITEMS:
            self.fail(f"{self._strings} strings in arrays are above the limit of {layout.MAX_STRING_ITEMS}", field)
        self.need(8 * count, field)
        start = self.offset
        data = bytearray()
        ends = np.empty(count, np.uint32)  # MAX_HEADER_BYTES is below 2^32
        done = 0
        while done < count:
            if len(self._window) - self._at < 8:
                self.need(8, field)
                self._refill(field)
            begin = self._at
            whole = self._walk_strings(ends[done:], len(data))
            data += memoryview(self._window)[begin : self._at]
            done += whole
            if whole == 0:  # a string that crosses the end of the window
                piece = self.take(8, field)
                length = _U64.unpack(piece)[0]
                if length > layout.MAX_STRING_BYTES:
                    reason = (
                        f"string {done} has a length of {length} bytes, above the limit of {layout.MAX_STRING_BYTES}"
                    )
                    self.fail(reason, field, self.offset - 8)
                data += piece
                data += self.take(length, field)
                ends[done] = len(data)
                done += 1
        value = LazyStrings(data, ends)
        if (bad := value.invalid_byte()) is not None:
            self.fail("a string is not valid UTF-8", field, start + bad)
        return value

    def _walk_strings(self, ends: np.ndarray, written: int) -> int:
        """Steps over the strings that lie wholly in the window, at most `len(ends)`, and notes where each ends.

        Ends are counted from `written` at the position. Returns how many strings; the position is after the last.
        """
        window, at = self._window, self._at
        last = len(window)
        shift = written - at
        found: list[int] = []
        append, length_at = found.append, _U64.unpack_from
        for _ in range(min(len(ends), (last - at) // 8)):
            if at + 8 > last:
                break
            after = at + 8 + length_at(window, at)[0]
            if after > last:
                break
            append(after)
            at = after
        ends[: len(found)] = np.array(found, np.int64) + shift
        self._at = at
        return len(found)
