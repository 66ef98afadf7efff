"""Opening GGUF files, whole or split, and reading the bytes of their tensors."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType

import numpy as np
from edgert_models.errors import FileFormatError, RequestError

from edgert_quant.files import InputFile, quoted
from edgert_quant.gguf.header import GgufTensor, read_header
from edgert_quant.gguf.metadata import GgufMetadata
from edgert_quant.gguf.split import other_shards, read_split


class GgufFile:
    """A GGUF model, whose every byte count has been checked against its files. Use as a context manager, or `close()`.

    Safe to read from several threads. Metadata are those of the first shard, tensors those of all.
    """

    def __init__(self, files: list[InputFile], version: int, alignment: int, metadata: GgufMetadata) -> None:
        self.path: Path = files[0].path
        self.paths: tuple[Path, ...] = tuple(file.path for file in files)
        self.version = version
        self.alignment = alignment
        self.metadata = metadata
        self.tensors: dict[str, GgufTensor] = {}
        self._files = files
        self._maps: dict[int, mmap.mmap] = {}

    @classmethod
    def open(cls, path: str | Path) -> GgufFile:
        """Opens a file, or the whole set when `path` is the first shard of a split model.

        Raises `RequestError` when there is no such file, `FileFormatError` for whatever is wrong in it (with file,
        offset and field), `UnsupportedError` for big endian, version 1 and tensor types that edgert does not know.
        """
        files = [InputFile(path)]
        try:
            header = read_header(files[0])
            model = cls(files, header.version, header.alignment, header.metadata)
            model.tensors.update(header.tensors)
            split = read_split(header.metadata)
            if split is not None:
                for number, shard_path in other_shards(model.path, header.metadata, split):
                    files.append(InputFile(shard_path))
                    shard = read_header(files[-1], number)
                    split.check_shard(number, shard.metadata)
                    for name, tensor in shard.tensors.items():
                        if name in model.tensors:
                            other = model.path_of(name).name
                            raise FileFormatError(shard_path, f"is in {other} too", field=f"tensor {quoted(name)}")
                        model.tensors[name] = tensor
                    model.paths = tuple(file.path for file in files)
                split.check_tensor_count(len(model.tensors), header.metadata)
            return model
        except BaseException:
            for file in files:
                file.close()
            raise

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(file.size for file in self._files)

    def path_of(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._files[self.tensor(name).shard].path

    def tensor(self, name: str) -> GgufTensor:
        """A tensor by name; `FileFormatError` when the model has none of that name."""
        try:
            return self.tensors[name]
        except KeyError:
            raise FileFormatError(self.path, "is not in the file", field=f"tensor {quoted(name)}") from None

    def read(self, name: str, start: int = 0, count: int | None = None, *, out: np.ndarray | None = None) -> np.ndarray:
        """Rows `start` to `start + count` (all that follow when None) of a tensor, as uint8 `[count, row_bytes]`.

        Rows count over all dimensions but the last: expert `e` of `(E, out, in)` starts at row `e * out`. `out`, where
        given, is filled and returned: uint8, contiguous, of exactly that shape. Raises `FileFormatError` when the file
        has been cut since it was opened, `RequestError` for rows that the tensor does not have.
        """
        tensor = self.tensor(name)
        rows, row_bytes = tensor.rows, tensor.row_bytes
        if count is None:
            count = rows - start
        if start < 0 or count < 0 or start + count > rows:
            raise RequestError(
                f"tensor {quoted(name)} has {rows} rows, not {start} to {start + count}", parameter="start"
            )
        if out is None:
            out = np.empty((count, row_bytes), np.uint8)
        elif out.shape != (count, row_bytes) or out.dtype != np.uint8 or not out.flags.c_contiguous:
            wanted = f"contiguous uint8 of shape {(count, row_bytes)}"
            raise RequestError(f"tensor {quoted(name)}: out must be {wanted}", parameter="out")
        if count:
            file = self._files[tensor.shard]
            file.read_into(out.reshape(-1).data, tensor.offset + start * row_bytes, f"tensor {quoted(name)}")
        return out

    def map(self, name: str) -> np.ndarray:
        """A tensor as a read-only memory map, uint8 `[rows, row_bytes]`; it outlives `close()`.

        The file's size is checked on each call, but not afterwards: a file that is cut while it is mapped kills the
        process with SIGBUS on the next touch of what is gone: ask `check_size` before. `read` has no such weakness.
        """
        tensor = self.tensor(name)
        file = self._files[tensor.shard]
        file.check_size()
        if tensor.shard not in self._maps:
            self._maps[tensor.shard] = mmap.mmap(file.fileno(), file.size, access=mmap.ACCESS_READ)
        mapped = self._maps[tensor.shard]
        array = np.frombuffer(mapped, np.uint8, count=tensor.nbytes, offset=tensor.offset)
        return array.reshape(tensor.rows, tensor.row_bytes)

    def check_size(self) -> None:
        """`FileFormatError` when a file has become shorter since it was opened, `RequestError` once it is closed."""
        for file in self._files:
            file.check_size()

    def close(self) -> None:
        """Closes the files. Maps live on as long as arrays on them do."""
        self._maps.clear()
        for file in self._files:
            file.close()

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
