"""Importance matrices as files: GGUF, and the older form without a magic number.

Source: `tools/imatrix/imatrix.cpp` and `common/imatrix-loader.cpp` in llama.cpp. In GGUF, `general.type` is "imatrix",
and each weight has the F32 tensors `NAME.in_sum2` [experts, in] and `NAME.counts` [experts, 1] (of a single matrix
without the dimension of 1). The older form, little-endian: i32 entries; for each i32 length, name, i32 calls, i32
values, f32 values; then, if it goes on, i32 chunks, i32 length, name of the text. Its values are mean squares times
calls, of all experts one after another; experts that were never chosen have ones.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from edgert_models.errors import FileFormatError
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType
from edgert_quant.files import InputFile, quoted
from edgert_quant.gguf import GgufFile, GgufWriter, ValueType
from edgert_quant.gguf.layout import MAX_NAME_BYTES, MAX_TENSORS
from edgert_quant.imatrix.importance import Importance, Sums

TYPE = "imatrix"
_DATASETS, _CHUNK_COUNT, _CHUNK_SIZE = (f"imatrix.{name}" for name in ("datasets", "chunk_count", "chunk_size"))
_SUMS, _COUNTS = ".in_sum2", ".counts"
_OLD_CHUNK = 512
"""Tokens of a chunk where the file does not say; the default of llama-imatrix."""
_LONGEST_TEXT = 4096
_MOST_ROWS = 1 << 62
_MOST = (1 << 32) - 1
_I32 = struct.Struct("<i")


def read_imatrix(path: str | Path) -> Importance:
    """Read an importance matrix in either form.

    RequestError where there is no such file, FileFormatError naming file and field for what is wrong in it.
    """
    file = InputFile(path)
    try:
        if file.size >= 4 and file.read(0, 4, "magic") == b"GGUF":
            return _read_gguf(path)
        return _OldReader(file).read()
    finally:
        file.close()


def write_imatrix(path: str | Path, importance: Importance) -> None:
    """Write the GGUF form, whole or not at all. ConversionError for what cannot be written, as a full disk."""
    with GgufWriter(path) as writer:
        writer.add_metadata("general.type", TYPE)
        writer.add_metadata(_DATASETS, list(importance.datasets), ValueType.STRING)
        writer.add_metadata(_CHUNK_COUNT, importance.chunk_count, ValueType.UINT32)
        writer.add_metadata(_CHUNK_SIZE, importance.chunk_size, ValueType.UINT32)
        names = sorted(importance.sums)
        for name in names:
            experts, width = importance.sums[name].in_sum2.shape
            writer.add_tensor(name + _SUMS, BlockType.F32, (experts, width) if experts > 1 else (width,))
            writer.add_tensor(name + _COUNTS, BlockType.F32, (experts, 1) if experts > 1 else (1,))
        writer.begin()
        for name in names:
            writer.write(name + _SUMS, importance.sums[name].in_sum2.astype("<f4"))
            writer.write(name + _COUNTS, importance.sums[name].counts.astype("<f4"))


def _read_gguf(path: str | Path) -> Importance:
    with GgufFile.open(path) as file:
        kind = file.metadata.string("general.type", "")
        if kind != TYPE:
            what = f"general.type is {quoted(kind)}" if kind else "there is no general.type"
            raise FileFormatError(path, f"is no importance matrix: {what}, not '{TYPE}'", field="general.type")
        sums: dict[str, Sums] = {}
        for tensor in file.tensors:
            name = tensor.removesuffix(_SUMS)
            if name != tensor:
                sums[name] = _sums(file, name)
            elif tensor.endswith(_COUNTS) and tensor.removesuffix(_COUNTS) + _SUMS not in file.tensors:
                raise FileFormatError(path, f"has no sums ({_SUMS}) beside it", field=f"tensor {quoted(tensor)}")
        if not sums:
            raise FileFormatError(path, "is an importance matrix of nothing")
        count, size = (file.metadata.integer(key, 0, minimum=0, maximum=_MOST) for key in (_CHUNK_COUNT, _CHUNK_SIZE))
        return Importance(sums, tuple(file.metadata.strings(_DATASETS, [])), count, size, path=str(path))


def _sums(file: GgufFile, name: str) -> Sums:
    if name + _COUNTS not in file.tensors:
        reason = f"has no counts ({_COUNTS}) beside it"
        raise FileFormatError(file.path, reason, field=f"tensor {quoted(name + _SUMS)}")
    values, counts = _floats(file, name + _SUMS), _floats(file, name + _COUNTS)
    if len(values) % len(counts):
        reason = f"{len(values)} sums cannot be of {len(counts)} matrices of the same width"
        raise FileFormatError(file.path, reason, field=f"tensor {quoted(name + _SUMS)}")
    return Sums(values.reshape(len(counts), -1), np.rint(counts.astype(np.float64)).astype(np.int64))


def _floats(file: GgufFile, tensor: str) -> NDArray[np.float32]:
    """All values of a tensor: finite, and none below zero."""
    kind = file.tensors[tensor].type
    if kind is not BlockType.F32:
        raise FileFormatError(file.path, f"is {kind.name}, not F32", field=f"tensor {quoted(tensor)}")
    return _checked(file.path, tensor, file.read(tensor).reshape(-1).view("<f4").astype(np.float32, copy=False))


def _checked(path: Path, field: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    good = (values >= 0) & (values < _MOST_ROWS if field.endswith(_COUNTS) else np.isfinite(values))
    if not good.all():
        at = int(np.argmin(good))
        reason = f"value {at} is {values[at]:g}; a sum of squares, or a count, is a number from 0 on"
        raise FileFormatError(path, reason, field=f"tensor {quoted(field)}")
    return values


class _OldReader:
    """The older form, forward: every length is checked against what the file still holds."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._at = 0

    def read(self) -> Importance:
        entries = self._integer("number of entries", 1, MAX_TENSORS)
        sums: dict[str, Sums] = {}
        for number in range(entries):
            name = self._text(f"name of entry {number}", MAX_NAME_BYTES - 1)
            if not name or name in sums:
                reason = "is there twice" if name else "is empty"
                raise FileFormatError(self._file.path, f"the name {quoted(name)} {reason}", field=f"entry {number}")
            calls = self._integer(f"calls of {quoted(name)}", 0, (1 << 31) - 1)
            count = self._integer(f"number of values of {quoted(name)}", 1, (1 << 31) - 1)
            raw = np.frombuffer(self._take(4 * count, f"values of {quoted(name)}"), "<f4").astype(np.float32)
            values = _checked(self._file.path, name, raw)
            with np.errstate(over="ignore"):
                values = _checked(self._file.path, name, values * np.float32(_OLD_CHUNK))
            sums[name] = Sums(values[None], np.array([max(calls, 1) * _OLD_CHUNK], np.int64))
        chunks, datasets = 0, tuple[str, ...]()
        if self._at < self._file.size:
            chunks = self._integer("number of chunks", 0, (1 << 31) - 1)
            if self._at < self._file.size:
                datasets = (self._text("name of the text", _LONGEST_TEXT),)
        return Importance(sums, datasets, chunks, _OLD_CHUNK, counted=False, path=str(self._file.path))

    def _take(self, count: int, field: str) -> bytes:
        left = self._file.size - self._at
        if count > left:
            reason = f"needs {count} bytes, and the file has {left} more"
            if self._at < 8:
                reason += "; is it an importance matrix?"
            raise FileFormatError(self._file.path, reason, offset=self._at, field=field)
        data = self._file.read(self._at, count, field)
        self._at += count
        return data

    def _integer(self, field: str, least: int, most: int) -> int:
        start = self._at
        value: int = _I32.unpack(self._take(4, field))[0]
        if not least <= value <= most:
            reason = f"is {value}, not {least} to {most}"
            if not start:
                reason += "; is it an importance matrix?"
            raise FileFormatError(self._file.path, reason, offset=start, field=field)
        return value

    def _text(self, field: str, longest: int) -> str:
        length = self._integer(f"length of the {field}", 0, longest)
        start = self._at
        try:
            return self._take(length, field).decode()
        except UnicodeDecodeError as error:
            raise FileFormatError(self._file.path, "is not valid UTF-8", offset=start, field=field) from error
