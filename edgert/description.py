"""What a model's file says of itself, whether the model is loaded or not."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edgert_models import spec_from_gguf
from edgert_models.errors import EdgertError
from edgert_quant.gguf import GgufFile


@dataclass(frozen=True, slots=True)
class Description:
    """`name` is what it calls itself, or its file's name; `type` that of most bytes; `problem` why it does not run, ""
    if it does; `parameters` are weights, `size` bytes of all its files, `modified` seconds since 1970.
    """

    name: str
    architecture: str
    type: str
    parameters: int
    size: int
    modified: float
    problem: str = ""


def describe(path: Path) -> Description:
    """A file's description; one that has not changed is not read again. Never raises what is wrong with the file."""
    try:
        status = path.stat()
    except OSError as error:
        return Description(path.stem, "?", "", 0, 0, 0.0, f"{path}: {error.strerror}")
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _read(path: Path, modified: int, size: int) -> Description:
    architecture, when = "?", modified / 1e9
    try:
        with GgufFile.open(path) as file:
            architecture = file.metadata.string("general.architecture", "?")
            shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
            spec = spec_from_gguf(file.metadata, shapes)
            bytes_of: Counter[str] = Counter()
            for tensor in file.tensors.values():
                bytes_of[tensor.type.name] += tensor.nbytes
            parameters = sum(math.prod(shape) for shape in shapes.values())
            kind = max(bytes_of, key=bytes_of.__getitem__, default="")
            return Description(spec.name or path.stem, architecture, kind, parameters, file.size, when)
    except EdgertError as error:
        return Description(path.stem, architecture, "", 0, size, when, str(error))
