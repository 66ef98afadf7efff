"""The header of one GGUF file: version, metadata, tensor infos, and every check that ties them to the file.

Source: the GGUF specification, `docs/gguf.md` in ggml. Versions 2 and 3 differ in nothing but that 3 allows big endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from edgert_models.errors import UnsupportedError

from edgert_quant.blocks.types import BlockType
from edgert_quant.files import InputFile, quoted
from edgert_quant.gguf import layout
from edgert_quant.gguf.cursor import Cursor
from edgert_quant.gguf.metadata import Entry, GgufMetadata, field_name
from edgert_quant.gguf.values import DTYPES, FORMATS, ValueType

MAGIC = b"GGUF"
_OTHER_MAGICS = {
    b"FUGG": "a big-endian GGUF",
    b"ggml": "a GGML file, the format before GGUF",
    b"lmgg": "a GGML file, the format before GGUF",
    b"fmgg": "a GGMF file, a format before GGUF",
    b"tjgg": "a GGJT file, a format before GGUF",
    b"algg": "a GGLA adapter, a format before GGUF",
    b"PK\3\4": "a zip archive, as torch.save writes it",
}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor in a file: what it is and where it lies.

    `shape` is in NumPy order, outermost dimension first; `offset` counts from the start of the file (of the shard with
    number `shard`, from 0, in a split set); `nbytes` is its size there.
    """

    name: str
    type: BlockType
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    shard: int = 0

    @property
    def rows(self) -> int:
        """Rows: the product of all dimensions but the last."""
        return layout.row_count(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return layout.row_bytes(self.shape, self.type)


@dataclass(frozen=True)
class Header:
    """What stands before the data of a file."""

    version: int
    alignment: int
    metadata: GgufMetadata
    tensors: dict[str, GgufTensor]


def read_header(file: InputFile, shard: int = 0) -> Header:
    """Reads and checks a header. Raises `FileFormatError`, or `UnsupportedError` for big endian, versions and types."""
    cursor = Cursor(file)
    version, tensor_count, pair_count = _read_preamble(cursor)
    entries: dict[str, Entry] = {}
    for _ in range(pair_count):
        _read_pair(cursor, entries)
    metadata = GgufMetadata(file.path, entries)
    alignment = _read_alignment(metadata)
    infos = [_read_tensor_info(cursor, shard) for _ in range(tensor_count)]
    return Header(version, alignment, metadata, _place(cursor, infos, alignment))


def _read_preamble(cursor: Cursor) -> tuple[int, int, int]:
    """Version, number of tensors, number of pairs."""
    path = cursor.file.path
    magic = cursor.take(4, "magic")
    if magic != MAGIC:
        kind = _OTHER_MAGICS.get(magic, f"it starts with {magic!r}")
        if magic == b"FUGG":
            raise UnsupportedError(f"{path}: is {kind}; edgert reads little-endian files")
        cursor.fail(f"is no GGUF file: {kind}", "magic", 0)
    version = cursor.u32("version")
    if version and version & 0xFFFF == 0:
        raise UnsupportedError(
            f"{path}: is a big-endian GGUF (version {int.from_bytes(version.to_bytes(4, 'little'), 'big')}); "
            "edgert reads little-endian files: convert the model again for a little-endian machine"
        )
    if version == 0:
        cursor.fail("is 0", "version", 4)
    if version not in (2, 3):
        raise UnsupportedError(f"{path}: is GGUF version {version}; edgert reads versions 2 and 3")
    tensor_count = _read_count(cursor, "tensor count", layout.MAX_TENSORS, layout.SMALLEST_TENSOR)
    pair_count = _read_count(cursor, "key-value count", layout.MAX_PAIRS, layout.SMALLEST_PAIR)
    return version, tensor_count, pair_count


def _read_count(cursor: Cursor, field: str, limit: int, smallest: int) -> int:
    start = cursor.offset
    count = cursor.u64(field)
    if count > limit:
        cursor.fail(f"{count} is above the limit of {limit}", field, start)
    if count * smallest > cursor.remaining:
        cursor.fail(
            f"{count} need {count * smallest} bytes at least, and the file has {cursor.remaining} more", field, start
        )
    return count


def _read_pair(cursor: Cursor, entries: dict[str, Entry]) -> None:
    start = cursor.offset
    key = cursor.name(layout.MAX_KEY_BYTES, f"key {len(entries)}")
    if not key:
        cursor.fail("is empty", f"key {len(entries)}", start)
    field = field_name(key)
    if key in entries:
        cursor.fail("the key is there twice", field, start)
    value_type = _read_type(cursor, field)
    if value_type is not ValueType.ARRAY:
        entries[key] = Entry(_read_value(cursor, value_type, field), value_type, None, start)
        return
    item_type = _read_type(cursor, field)
    if item_type is ValueType.ARRAY:
        cursor.fail("is an array of arrays, which no model file needs", field, start)
    count = cursor.u64(field)
    value: object
    if item_type is ValueType.STRING:
        value = cursor.strings(count, field)
    else:
        at = cursor.offset
        dtype = DTYPES[item_type]
        if item_type is ValueType.BOOL:
            numbers = cursor.items(np.dtype(np.uint8), count, field)
            if count and numbers.max() > 1:
                cursor.fail("a boolean is neither 0 nor 1", field, at + int(numbers.argmax()))
            value = numbers.view(dtype)
        else:
            value = cursor.items(dtype, count, field)
    entries[key] = Entry(value, value_type, item_type, start)


def _read_type(cursor: Cursor, field: str) -> ValueType:
    number = cursor.u32(field)
    try:
        return ValueType(number)
    except ValueError:
        cursor.fail(f"{number} is no type of a GGUF value", field, cursor.offset - 4)


def _read_value(cursor: Cursor, value_type: ValueType, field: str) -> object:
    if value_type is ValueType.STRING:
        return cursor.text(field)
    data = cursor.take(FORMATS[value_type].size, field)
    if value_type is ValueType.BOOL and data[0] > 1:
        cursor.fail(f"a boolean is {data[0]}, neither 0 nor 1", field, cursor.offset - 1)
    value: object = FORMATS[value_type].unpack(data)[0]
    return value


def _read_alignment(metadata: GgufMetadata) -> int:
    key = "general.alignment"
    if key not in metadata:
        return layout.DEFAULT_ALIGNMENT
    if metadata.value_type(key) is not ValueType.UINT32:
        metadata.fail(key, f"is {metadata.value_type(key).name}, not UINT32")
    alignment = metadata.integer(key)
    if problem := layout.alignment_problem(alignment):
        metadata.fail(key, problem)
    return alignment


@dataclass(frozen=True, slots=True)
class _Info:
    """A tensor as declared: `tensor.offset` still counts from the start of the data; `at` is where its info stands."""

    tensor: GgufTensor
    at: int


def _read_tensor_info(cursor: Cursor, shard: int) -> _Info:
    start = cursor.offset
    name = cursor.name(layout.MAX_NAME_BYTES, "tensor name")
    field = _tensor_field(name)
    dimensions = cursor.u32(field)
    if not 1 <= dimensions <= layout.MAX_DIMENSIONS:
        cursor.fail(f"has {dimensions} dimensions, not 1 to {layout.MAX_DIMENSIONS}", field, cursor.offset - 4)
    shape = tuple(cursor.u64(field) for _ in range(dimensions))[::-1]
    number = cursor.u32(field)
    try:
        block_type = BlockType(number)  # type: ignore[call-arg]  # a look-up by id, which mypy takes for __new__
    except ValueError as error:
        raise UnsupportedError(f"{cursor.file.path} at byte {cursor.offset - 4}, {field}: {error}") from error
    if problem := layout.shape_problem(shape, block_type):
        cursor.fail(problem, field, start)
    offset = cursor.u64(field)
    return _Info(GgufTensor(name, block_type, shape, offset, layout.tensor_bytes(shape, block_type), shard), start)


def _place(cursor: Cursor, infos: list[_Info], alignment: int) -> dict[str, GgufTensor]:
    """Turns offsets into offsets in the file; checks that each tensor lies in it, aligned, alone, with its own name."""
    data_start = layout.align_up(cursor.offset, alignment)
    tensors: dict[str, GgufTensor] = {}
    for info in infos:
        declared = info.tensor
        field = _tensor_field(declared.name)
        if declared.name in tensors:
            cursor.fail("the name is there twice", field, info.at)
        if declared.offset % alignment:
            cursor.fail(f"offset {declared.offset} is no multiple of the alignment {alignment}", field, info.at)
        offset = data_start + declared.offset
        if offset + declared.nbytes > cursor.file.size:
            _fail_outside(cursor, info, offset)
        tensors[declared.name] = GgufTensor(
            declared.name, declared.type, declared.shape, offset, declared.nbytes, declared.shard
        )
    before: GgufTensor | None = None
    places = {info.tensor.name: info.at for info in infos}
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
        if before is not None and before.offset + before.nbytes > tensor.offset:
            end = before.offset + before.nbytes
            reason = f"overlaps {_tensor_field(before.name)}: starts at byte {tensor.offset}, before its end at {end}"
            cursor.fail(reason, _tensor_field(tensor.name), places[tensor.name])
        before = tensor
    return tensors


def _fail_outside(cursor: Cursor, info: _Info, offset: int) -> NoReturn:
    tensor = info.tensor
    reason = f"ends at byte {offset + tensor.nbytes}, and the file at {cursor.file.size}: is the download complete?"
    cursor.fail(reason, _tensor_field(tensor.name), info.at)


def _tensor_field(name: str) -> str:
    return f"tensor {quoted(name)}"
