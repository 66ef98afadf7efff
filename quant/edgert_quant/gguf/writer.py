"""Writing GGUF files as a stream: first everything is declared, then the data follow in that order, piece by piece.

What is written depends on the input alone: no times, no names of machines, no order of hashing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from edgert_models.errors import ConversionError

from edgert_quant.blocks.types import BlockType
from edgert_quant.files import quoted
from edgert_quant.gguf import layout
from edgert_quant.gguf.encode import encode_pair, encode_tensor_info
from edgert_quant.gguf.output import OutputFile
from edgert_quant.gguf.values import ValueType

Bytes = bytes | bytearray | memoryview | np.ndarray

_VERSION = 3
_MAX_NAME_BYTES = layout.MAX_NAME_BYTES - 1  # llama.cpp counts the terminating NUL in


class GgufWriter:
    """Writes one GGUF file (version 3, little endian).

        with GgufWriter("model.gguf") as writer:
            writer.add_metadata("general.architecture", "llama")
            writer.add_tensor("output.weight", BlockType.Q8_0, (vocabulary, width))
            writer.begin()
            for rows in pieces:
                writer.write("output.weight", rows)

    The file appears under its name when the block is left without an exception and every declared byte has been
    written; otherwise nothing appears, and an older file of that name stays as it is. All errors are `ConversionError`.
    """

    def __init__(self, path: str | Path, alignment: int = layout.DEFAULT_ALIGNMENT) -> None:
        self.path = Path(path)
        self._output = OutputFile(path)
        self._alignment = alignment
        self._pairs: dict[str, bytes] = {}
        self._tensors: dict[str, tuple[BlockType, tuple[int, ...], int]] = {}
        self._begun = False
        self._pending: list[tuple[str, int]] = []  # tensors not yet complete, last one first, with the bytes they want
        if problem := layout.alignment_problem(alignment):
            raise ConversionError(f"{self.path}: {problem}")
        if alignment != layout.DEFAULT_ALIGNMENT:
            self.add_metadata("general.alignment", alignment, ValueType.UINT32)

    def add_metadata(
        self,
        key: str,
        value: str | bytes | bool | int | float | np.generic | Sequence[object] | np.ndarray,
        type: ValueType | None = None,  # noqa: A002
    ) -> None:
        """Declares a key and its value, in the order in which the file shall have them.

        `type` is that of the value, or of the items where it is a list or an array (an empty list needs one). Without
        it, integers take the first of UINT32, INT32, UINT64, INT64 that holds them (in lists of INT32, INT64, UINT64),
        floats take FLOAT32, NumPy values their own type, bytes an array of UINT8.
        """
        self._declare("metadata")
        if key in self._pairs:
            raise self._error(f"the key {quoted(key)} is declared twice")
        if len(self._pairs) == layout.MAX_PAIRS:
            raise self._error(f"more than {layout.MAX_PAIRS} keys")
        try:
            self._pairs[key] = encode_pair(key, value, type)
        except ValueError as error:
            raise self._error(f"metadata {quoted(key)}: {error}") from error
        if key == "general.alignment" and value != self._alignment:
            raise self._error(f"general.alignment is {value!r}, and the file is written with {self._alignment}")

    def add_tensor(self, name: str, type: BlockType, shape: Sequence[int]) -> None:  # noqa: A002
        """Declares a tensor: `shape` in NumPy order, outermost dimension first. Data follow in the order declared."""
        self._declare("tensors")
        shape = tuple(int(size) for size in shape)
        if name in self._tensors:
            raise self._error(f"the tensor {quoted(name)} is declared twice")
        if len(self._tensors) == layout.MAX_TENSORS:
            raise self._error(f"more than {layout.MAX_TENSORS} tensors")
        try:
            length = len(name.encode())
        except UnicodeEncodeError as error:
            raise self._error(f"the tensor name {quoted(name)} is not valid Unicode") from error
        if not 1 <= length <= _MAX_NAME_BYTES:
            raise self._error(f"the tensor name {quoted(name)} has {length} bytes, not 1 to {_MAX_NAME_BYTES}")
        if problem := layout.shape_problem(shape, type):
            raise self._error(f"tensor {quoted(name)} {problem}")
        self._tensors[name] = (type, shape, layout.tensor_bytes(shape, type))

    def begin(self) -> None:
        """Ends the declarations and writes the header. Refuses when the disk has too little room for the whole file."""
        self._declare("the file")
        self._begun = True
        header = self._header()
        size = len(header) + sum(layout.align_up(nbytes, self._alignment) for _, _, nbytes in self._tensors.values())
        self._pending = [(name, nbytes) for name, (_, _, nbytes) in reversed(self._tensors.items())]
        self._output.open(size)
        self._output.write(memoryview(header))

    def write(self, name: str, data: Bytes) -> None:
        """Writes the next bytes of a tensor; an array is taken as its bytes in C order.

        `name` is the first tensor that is not complete yet: the error for any other one names both.
        """
        if not self._begun:
            raise self._error("begin() comes before write()")
        if not self._pending or self._pending[-1][0] != name:
            wanted = f"{quoted(self._pending[-1][0])} is next" if self._pending else "all tensors are complete"
            raise self._error(f"data for tensor {quoted(name)}, where {wanted}")
        view = _as_bytes(data)
        left = self._pending[-1][1] - len(view)
        if left < 0:
            declared = self._tensors[name][2]
            raise self._error(f"tensor {quoted(name)} was declared with {declared} bytes, and gets {-left} more")
        self._output.write(view)
        self._pending[-1] = (name, left)
        if left == 0:
            self._pending.pop()
            nbytes = self._tensors[name][2]
            self._output.write(memoryview(bytes(layout.align_up(nbytes, self._alignment) - nbytes)))

    def finish(self) -> None:
        """Checks that every declared byte is there, and puts the file under its name. Leaving the block calls it."""
        if not self._begun:
            self.begin()
        if self._pending:
            name, left = self._pending[-1]
            self.abort()
            raise self._error(f"tensor {quoted(name)} lacks {left} of its {self._tensors[name][2]} bytes")
        self._output.commit()

    def abort(self) -> None:
        """Removes what was written. Leaving the block by an exception calls it."""
        self._begun = True
        self._output.abort()

    @property
    def written(self) -> int:
        """Bytes of the file so far."""
        return self._output.written

    def __enter__(self) -> GgufWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.abort()  # does nothing after a commit

    def _header(self) -> bytes:
        parts = [b"GGUF", _VERSION.to_bytes(4, "little")]
        parts += [len(self._tensors).to_bytes(8, "little"), len(self._pairs).to_bytes(8, "little")]
        parts += self._pairs.values()
        offset = 0
        for name, (block_type, shape, nbytes) in self._tensors.items():
            parts.append(encode_tensor_info(name, block_type, shape, offset))
            offset += layout.align_up(nbytes, self._alignment)
        header = b"".join(parts)
        if len(header) > layout.MAX_HEADER_BYTES:
            raise self._error(f"metadata of {len(header)} bytes are above the limit of {layout.MAX_HEADER_BYTES}")
        return header.ljust(layout.align_up(len(header), self._alignment), b"\0")

    def _declare(self, what: str) -> None:
        if self._begun:
            raise self._error(f"{what} cannot be declared after begin()")

    def _error(self, reason: str) -> ConversionError:
        return ConversionError(f"{self.path}: {reason}")


def _as_bytes(data: Bytes) -> memoryview:
    """The bytes of data in C order, without a copy where they lie so already."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    return memoryview(data).cast("B")
