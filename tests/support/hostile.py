"""Model files made byte by byte, so that any of those bytes can be wrong, and mutations of whole files."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from edgert_models.errors import FileFormatError, UnsupportedError

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: str | bytes, length: int | None = None) -> bytes:
    """A GGUF string; `length` is what the file says where that is not the truth."""
    data = text.encode() if isinstance(text, str) else text
    return u64(len(data) if length is None else length) + data


def pair(key: str | bytes, kind: int, payload: bytes) -> bytes:
    return string(key) + u32(kind) + payload


def text_pair(key: str, value: str | bytes) -> bytes:
    return pair(key, STRING, string(value))


def array_pair(key: str, item_kind: int, count: int, payload: bytes) -> bytes:
    return pair(key, ARRAY, u32(item_kind) + u64(count) + payload)


def tensor(
    name: str | bytes, dimensions: Sequence[int], kind: int = 0, offset: int = 0, count: int | None = None
) -> bytes:
    """A tensor info; `dimensions` are in the order of the file: the row length first."""
    head = string(name) + u32(len(dimensions) if count is None else count)
    return head + b"".join(u64(size) for size in dimensions) + u32(kind) + u64(offset)


def gguf(
    pairs: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    magic: bytes = b"GGUF",
    pair_count: int | None = None,
    tensor_count: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file; the counts are what the header says where that is not the truth."""
    head = magic + u32(version)
    head += u64(len(tensors) if tensor_count is None else tensor_count)
    head += u64(len(pairs) if pair_count is None else pair_count)
    head += b"".join(pairs) + b"".join(tensors)
    return head.ljust(-(-len(head) // alignment) * alignment, b"\0") + data


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A whole file; `header` is JSON text or what is dumped as such."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return u64(len(text) if length is None else length) + text + data


_EDGES = (0, 1, 2, 7, 8, 255, 65_535, 65_536, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32)
_HUGE = (1 << 40, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 32, (1 << 64) - 8, (1 << 64) - 1)


@dataclass
class Mutator:
    """Seeded mutations of a set of files: bit flips, cuts, edits of length fields, splices, and mixtures of them."""

    files: Sequence[bytes]
    seed: int
    header_bytes: int = 600
    text: bool = False
    _random: random.Random = field(init=False)
    _actions: Sequence[Callable[[bytearray], None]] = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        digit = [self._digit] * 5 if self.text else []  # a header of text, after eight bytes of its length
        self._actions = (self._flip, self._cut, self._edit, self._edit, self._splice, *digit)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data = bytearray(self._random.choice(self.files))
        for _ in range(self._random.choice((1, 1, 1, 2, 4))):
            self._random.choice(self._actions)(data)
        return bytes(data)

    def _place(self, data: bytearray) -> int:
        """An offset, mostly in the header, where what is wrong matters."""
        limit = len(data) if self._random.random() < 0.2 else min(len(data), self.header_bytes)
        return self._random.randrange(max(limit, 1))

    def _flip(self, data: bytearray) -> None:
        for _ in range(self._random.randint(1, 8)):
            at = self._place(data)
            if at < len(data):
                data[at] ^= 1 << self._random.randrange(8)

    def _cut(self, data: bytearray) -> None:
        del data[self._place(data) :]

    def _edit(self, data: bytearray) -> None:
        """Overwrites what may be a length, preferably where one stands: a small number in eight or four bytes."""
        width, form = self._random.choice(((8, "<Q"), (8, "<Q"), (4, "<I")))
        if len(data) < width:
            return
        places = [at for at in range(min(len(data) - width, self.header_bytes)) if not any(data[at + 2 : at + width])]
        at = self._random.choice(places) if places and self._random.random() < 0.8 else 0
        old = struct.unpack_from(form, data, at)[0]
        value = self._random.choice((*_EDGES, *_HUGE, old + 1, old - 1, old * 2, len(data), len(data) - at))
        struct.pack_into(form, data, at, value % (1 << 8 * width))

    def _splice(self, data: bytearray) -> None:
        """Copies, moves or removes a run of bytes, or takes one from another file."""
        other = self._random.choice(self.files)
        start = self._random.randrange(len(other))
        run = other[start : start + self._random.choice((1, 4, 8, 24, 100))]
        at = self._place(data)
        removed = self._random.choice((0, len(run), self._random.randrange(64)))
        data[at : at + removed] = run if self._random.random() < 0.8 else b""

    def _digit(self, data: bytearray) -> None:
        """Replaces a digit, bracket or quote, or a whole number: what lengths and structure are made of in text."""
        numbers = list(re.finditer(rb"\d+", data[8 : self.header_bytes]))
        if numbers and self._random.random() < 0.7:
            found = self._random.choice(numbers)
            old = int(found[0])
            value = self._random.choice((*_EDGES, *_HUGE, old + 1, old - 1, old * 2, -old, len(data)))
            data[8 + found.start() : 8 + found.end()] = str(value).encode()
            data[:8] = u64((int.from_bytes(data[:8], "little") + len(str(value)) - len(found[0])) % (1 << 64))
            return
        places = [at for at in range(min(len(data), self.header_bytes)) if data[at] in b'0123456789[]{}",:']
        if places:
            data[self._random.choice(places)] = self._random.choice(b'0123456789[]{}",:-.e\0')


def survival(
    path: Path, mutants: Iterator[bytes], count: int, read: Callable[[bytes], None]
) -> tuple[int, int, float, int]:
    """What becomes of so many mutants, written to `path` one by one, when `read` (given their bytes too) reads them:
    how many are read, how many refused by a typed error of one line, the slowest in seconds, and of how many reasons.
    """
    read_well = refused = 0
    slowest, messages = 0.0, list[str]()
    target = os.open(path, os.O_WRONLY)
    for data in islice(mutants, count):
        os.pwrite(target, data, 0)  # cutting a file to 0 and writing it again makes some file systems sync it
        os.ftruncate(target, len(data))
        start = time.process_time()
        try:
            read(data)
            read_well += 1
        except (FileFormatError, UnsupportedError) as error:
            refused += 1
            messages.append(str(error))
        slowest = max(slowest, time.process_time() - start)
    os.close(target)
    assert not [message for message in messages if "\n" in message]
    reasons = {"".join(c for c in message.partition(": ")[2] if c.isalpha())[:40] for message in messages}
    return read_well, refused, slowest, len(reasons)
