"""Reading and writing tiny safetensors checkpoints in tests."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from edgert_quant.checkpoint import Checkpoint

Tensors = dict[str, np.ndarray]


def load(folder: Path) -> Tensors:
    """All tensors, as float32."""
    with Checkpoint.open(folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.tensors}


def save(folder: Path, tensors: Tensors, config: Path | dict[str, object]) -> Path:
    """A checkpoint of float32 tensors, in one file."""
    save_zeros(folder, {name: array.shape for name, array in tensors.items()}, config)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, "<f4").data)
    return folder


def save_zeros(folder: Path, shapes: dict[str, tuple[int, ...]], config: Path | dict[str, object]) -> None:
    """A checkpoint of zeros, as a file of holes."""
    folder.mkdir(exist_ok=True)
    text = config.read_text() if isinstance(config, Path) else json.dumps(config)
    (folder / "config.json").write_text(text)
    header: dict[str, object] = {}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    header_bytes = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header_bytes).to_bytes(8, "little") + header_bytes)
        file.truncate(file.tell() + offset)
