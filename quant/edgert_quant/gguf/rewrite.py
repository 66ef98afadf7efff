"""Other metadata for a file whose tensors stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from edgert_quant.files import InputFile, quoted
from edgert_quant.gguf.header import read_header
from edgert_quant.gguf.split import read_split
from edgert_quant.gguf.writer import GgufWriter

_PIECE = 4 << 20  # bytes
_ALIGNMENT = "general.alignment"


def rewrite_metadata(path: str | Path, entries: Mapping[str, object], *, without: str = "") -> None:
    """Put `entries` into a file's metadata, in place of all keys that begin with `without` (if it is not empty).

    Values are what `GgufWriter.add_metadata` takes; keys that are there already are replaced. The file is written anew
    beside the old one, piece by piece, and takes its place when it is complete; tensors keep their order, types and
    bytes. Of a split set, give the first shard: it holds the metadata, and the others stay as they are.

    Raises `RequestError` and `FileFormatError` as reading does, `ConversionError` as writing does.
    """
    with closing(InputFile(path)) as file:
        header = read_header(file)
        metadata = header.metadata
        read_split(metadata)  # refuses later shards by name
        with GgufWriter(path, header.alignment) as writer:
            for key, value in metadata.items():
                if key in entries or key == _ALIGNMENT or (without and key.startswith(without)):
                    continue
                writer.add_metadata(key, value, metadata.stored_type(key))  # type: ignore[arg-type]
            for key, value in entries.items():
                writer.add_metadata(key, value)  # type: ignore[arg-type]
            for tensor in header.tensors.values():
                writer.add_tensor(tensor.name, tensor.type, tensor.shape)
            writer.begin()
            buffer = np.empty(_PIECE, np.uint8)
            for tensor in header.tensors.values():
                for start in range(0, tensor.nbytes, _PIECE):
                    piece = buffer[: min(_PIECE, tensor.nbytes - start)]
                    file.read_into(piece.data, tensor.offset + start, f"tensor {quoted(tensor.name)}")
                    writer.write(tensor.name, piece)
