"""The header of a safetensors file, read as that of a file which may be hostile.

Layout: 8 bytes of header length N, N bytes of JSON (name → dtype, shape, data_offsets), then the data without holes.
Source: the safetensors format description, https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from edgert_models.errors import FileFormatError, UnsupportedError

from edgert_quant.checkpoint.documents import parse_json
from edgert_quant.checkpoint.dtypes import BITS
from edgert_quant.files import InputFile, human_bytes, quoted

MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 8
MAX_ELEMENTS = (1 << 60) - 1  # NumPy counts bytes in 63 bits, and leaves out dimensions of 0 where it does
_MAX_VALUES = 4_000_000
_MAX_WIDE_BYTES = 8 << 20
_MEMORY = 64 << 20
_BYTES_PER_VALUE = 256
_KEYS = {"dtype", "shape", "data_offsets"}

_PICKLE_PROTOCOLS = range(2, 6)


@dataclass(frozen=True, slots=True)
class CheckpointTensor:
    """A tensor of a checkpoint: `shape` is outermost first; `offset` (in `file`) and `nbytes` are bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int


def read_header(file: InputFile) -> dict[str, CheckpointTensor]:
    """The tensors of a file, in the order of their data. `FileFormatError` for whatever is wrong with the header."""
    _refuse_other_formats(file)
    if file.size < 8:
        raise FileFormatError(file.path, f"has {file.size} bytes, fewer than a header", offset=0, field="header length")
    length = int.from_bytes(file.read(0, 8, "header length"), "little")
    limit = min(MAX_HEADER_BYTES, file.size - 8)
    if not 2 <= length <= limit:
        reason = f"is {length}, not 2 to {limit} (the file has {human_bytes(file.size)})"
        raise FileFormatError(file.path, reason, offset=0, field="header length")
    # All of it may take 64 MiB and twice the file; the text, and a copy of its strings, take twice the header.
    room = (_MEMORY + 2 * (file.size - length)) // _BYTES_PER_VALUE
    header = parse_json(file, 8, length, "header", max_values=min(room, _MAX_VALUES), max_wide_bytes=_MAX_WIDE_BYTES)
    if not isinstance(header, dict):
        _fail(file, "header", "is not a JSON object")
    tensors = [_tensor(file, name, info, 8 + length) for name, info in header.items() if name != "__metadata__"]
    _check_metadata(file, header.get("__metadata__", {}))
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    _check_layout(file, tensors, 8 + length)
    return {tensor.name: tensor for tensor in tensors}


def _refuse_other_formats(file: InputFile) -> None:
    """Names what a file is when it is plainly something else."""
    start = file.read(0, min(file.size, 16), "start")
    if start[5:9] == b"\0\0\0{":
        return  # a header length may begin with the bytes of a pickle
    if start[:4] == b"PK\3\4" or (len(start) > 1 and start[0] == 0x80 and start[1] in _PICKLE_PROTOCOLS):
        refuse_pickle(file.path)
    if start[:4] == b"GGUF":
        raise FileFormatError(file.path, "is a GGUF file, not a safetensors checkpoint", offset=0)
    if start.startswith(b"version https://"[:16]):
        raise FileFormatError(file.path, "is a Git LFS pointer, not the file itself: run `git lfs pull`", offset=0)


def refuse_pickle(path: Path) -> NoReturn:
    """Raises the error that says why a pickled checkpoint is not read, and what to do."""
    raise UnsupportedError(
        f"{path}: is a pickled checkpoint, and unpickling a file can run any code in it; save the model as safetensors "
        "(transformers: model.save_pretrained(folder, safe_serialization=True))"
    )


def _fail(file: InputFile, field: str, reason: str) -> NoReturn:
    raise FileFormatError(file.path, reason, offset=8, field=field)


def _tensor(file: InputFile, name: str, info: object, data_start: int) -> CheckpointTensor:
    """One entry of the header, checked against itself and the file."""
    field = f"tensor {quoted(name)}"
    try:
        name.encode()
    except UnicodeEncodeError:
        _fail(file, field, "the name is not valid Unicode")
    if not isinstance(info, dict) or info.keys() != _KEYS:
        _fail(file, field, "is not an object of dtype, shape and data_offsets")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str):
        _fail(file, field, "the dtype is not a string")
    if dtype not in BITS:
        raise UnsupportedError(f"{file.path}: {field} has the dtype {quoted(dtype)}, which safetensors does not define")
    if not _is_sizes(shape):
        _fail(file, field, "the shape is not a list of integers from 0")
    if len(shape) > MAX_DIMENSIONS:
        _fail(file, field, f"has {len(shape)} dimensions, more than {MAX_DIMENSIONS}")
    if not _is_sizes(offsets) or len(offsets) != 2:
        _fail(file, field, "data_offsets are not two integers from 0")
    begin, end = offsets
    if begin > end or data_start + end > file.size:
        _fail(file, field, f"data_offsets {begin} to {end} do not lie in the {file.size - data_start} bytes of data")
    elements = math.prod(max(size, 1) for size in shape)
    if elements > MAX_ELEMENTS:
        _fail(file, field, f"has more than 2^60 elements: shape {shape}")
    bits = 0 if 0 in shape else elements * BITS[dtype]
    if bits != 8 * (end - begin):
        _fail(file, field, f"has {end - begin} bytes, and shape {shape} of {dtype} needs {bits / 8:g}")
    return CheckpointTensor(name, dtype, tuple(shape), file.path, data_start + begin, end - begin)


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_metadata(file: InputFile, metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _fail(file, "__metadata__", "is not an object of strings")


def _check_layout(file: InputFile, tensors: list[CheckpointTensor], data_start: int) -> None:
    """The data are the tensors one after the other, to the end of the file."""
    end = data_start
    for tensor in tensors:
        if tensor.offset != end:
            what = "overlaps the one before" if tensor.offset < end else "leaves a hole before itself"
            _fail(
                file, f"tensor {quoted(tensor.name)}", f"starts at byte {tensor.offset} and {what}, which ends at {end}"
            )
        end += tensor.nbytes
    if end != file.size:
        _fail(file, "header", f"describes data to byte {end}, and the file ends at {file.size}")
