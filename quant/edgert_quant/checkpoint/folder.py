"""Checkpoints as Hugging Face keeps them: a folder with `config.json`, safetensors files, and the tokenizer's files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import numpy as np
from edgert_models.errors import FileFormatError, RequestError

from edgert_quant.checkpoint.documents import read_json
from edgert_quant.checkpoint.dtypes import storage_dtype, to_float32
from edgert_quant.checkpoint.safetensors import CheckpointTensor, read_header, refuse_pickle
from edgert_quant.files import InputFile, human_bytes, quoted

CONFIG_NAME = "config.json"
SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})

_CONFIG_BYTES, _CONFIG_VALUES = 4 << 20, 500_000
_INDEX_BYTES, _INDEX_VALUES = 64 << 20, 4_000_000
_FILE_BYTES, _FILE_VALUES = 128 << 20, 16_000_000

Accept = Callable[[Mapping[str, object]], None]
"""accept(config) raises an error that says why a configuration is refused."""


class Checkpoint:
    """An open checkpoint: its configuration, where its tensors lie, and their values. Context manager, or `close()`.

    `config` is `config.json`; `auto_map` and other references to code in it are data like all else: nothing from a
    checkpoint is ever executed.
    """

    def __init__(self, folder: Path, config: dict[str, object], files: dict[Path, InputFile]) -> None:
        self.folder = folder
        self.config = config
        self.tensors: dict[str, CheckpointTensor] = {}
        self._files = files

    @classmethod
    def open(cls, path: str | Path, accept: Accept | None = None) -> Checkpoint:
        """Opens a folder, or one safetensors file with `config.json` beside it. `accept` may refuse the configuration
        by raising an error, before weights are looked for.

        Raises `RequestError` when there is nothing at `path`, `FileFormatError` for whatever is missing or wrong in the
        checkpoint, `UnsupportedError` for pickled checkpoints.
        """
        path = Path(path)
        single: Path | None = None
        if path.suffix in PICKLE_SUFFIXES and path.is_file():
            refuse_pickle(path)
        if not path.is_dir():
            single = path
        folder = path if single is None else path.parent
        checkpoint = cls(folder, {}, {})
        try:
            if accept is not None and (folder / CONFIG_NAME).is_file():
                checkpoint.config = checkpoint._read_config()
                accept(checkpoint.config)
            if single is None:
                checkpoint._open_folder()
            else:
                checkpoint.tensors.update(checkpoint._open_file(single))
            if not checkpoint.config:
                checkpoint.config = checkpoint._read_config()
        except BaseException:
            checkpoint.close()
            raise
        return checkpoint

    def _open_folder(self) -> None:
        """Finds the weights as transformers does: one file, else the index, else the only safetensors file there is."""
        if (self.folder / SINGLE_NAME).exists():
            self.tensors.update(self._open_file(self.folder / SINGLE_NAME))
        elif (self.folder / INDEX_NAME).exists():
            self._open_index()
        else:
            found = sorted(self.folder.glob("*.safetensors"))
            if len(found) != 1:
                self._no_weights(found)
            self.tensors.update(self._open_file(found[0]))

    def _no_weights(self, found: list[Path]) -> NoReturn:
        if found:
            names = ", ".join(path.name for path in found[:3])
            raise FileFormatError(self.folder, f"has {len(found)} safetensors files ({names}, …) and no {INDEX_NAME}")
        for path in sorted(self.folder.iterdir()):
            if path.suffix in PICKLE_SUFFIXES and path.name != "training_args.bin":
                refuse_pickle(path)
        raise FileFormatError(self.folder, f"has no weights: neither {SINGLE_NAME} nor {INDEX_NAME}")

    def _open_file(self, path: Path) -> dict[str, CheckpointTensor]:
        file = InputFile(path)
        self._files[path] = file
        return read_header(file)

    def _open_index(self) -> None:
        """Opens all shards. The index decides which shard a tensor is taken from."""
        path = self.folder / INDEX_NAME
        index = read_json(path, max_bytes=_INDEX_BYTES, max_values=_INDEX_VALUES)
        places = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(places, dict) or not places:
            raise FileFormatError(path, "is not an object of tensor names and files", field="weight_map")
        shards: dict[str, None] = {}
        for name, shard in places.items():
            if not isinstance(shard, str) or not _is_plain_name(shard):
                reason = f"names {quoted(str(shard))}, not a safetensors file of this folder"
                raise FileFormatError(path, reason, field=f"tensor {quoted(name)}")
            shards[shard] = None
        for shard in shards:
            if not (self.folder / shard).is_file():
                missing = sum(not (self.folder / other).is_file() for other in shards)
                reason = f"the shard is missing ({missing} of {len(shards)} are)"
                raise FileFormatError(self.folder / shard, reason)
        for shard in shards:
            for name, tensor in self._open_file(self.folder / shard).items():
                if places.get(name, shard) != shard:
                    continue
                if name in self.tensors:
                    reason = f"is in {self.tensors[name].file.name} too, and the index names neither"
                    raise FileFormatError(tensor.file, reason, field=f"tensor {quoted(name)}")
                self.tensors[name] = tensor
        for name, shard in places.items():
            if name not in self.tensors:
                raise FileFormatError(path, f"is not in {shard}", field=f"tensor {quoted(name)}")

    def _read_config(self) -> dict[str, object]:
        path = self.folder / CONFIG_NAME
        if not path.exists():
            raise FileFormatError(path, "there is no such file, and a checkpoint needs one")
        config = read_json(path, max_bytes=_CONFIG_BYTES, max_values=_CONFIG_VALUES)
        if not isinstance(config, dict):
            raise FileFormatError(path, "is not a JSON object")
        return config

    def json(self, name: str) -> object | None:
        """A JSON file of the folder (`tokenizer_config.json`, …), None when it is not there."""
        path = self.folder / name
        return read_json(path, max_bytes=_FILE_BYTES, max_values=_FILE_VALUES) if path.exists() else None

    def contents(self, name: str) -> bytes | None:
        """A small file of the folder (`chat_template.jinja`, `tokenizer.model`, …), None when it is not there."""
        path = self.folder / name
        if not path.exists():
            return None
        file = InputFile(path)
        try:
            if file.size > _FILE_BYTES:
                raise FileFormatError(
                    path, f"has {human_bytes(file.size)}, above the limit of {human_bytes(_FILE_BYTES)}"
                )
            return file.read(0, file.size, "contents")
        finally:
            file.close()

    def tensor(self, name: str) -> CheckpointTensor:
        """A tensor by name; `FileFormatError` when the checkpoint has none of that name."""
        try:
            return self.tensors[name]
        except KeyError:
            raise FileFormatError(self.folder, "is not in the checkpoint", field=f"tensor {quoted(name)}") from None

    def read_raw(self, name: str, start: int = 0, count: int | None = None) -> np.ndarray:
        """Entries `start` to `start + count` of the first axis (all that follow when None), as they are stored.

        BF16 comes as uint16, FP8 as uint8; the other types as themselves. A scalar has one entry and the shape `()`.
        Raises `FileFormatError` when the file has been cut since it was opened, `RequestError` for entries that the
        tensor does not have, `UnsupportedError` for types edgert cannot read.
        """
        tensor = self.tensor(name)
        length = tensor.shape[0] if tensor.shape else 1
        if count is None:
            count = length - start
        if start < 0 or count < 0 or start + count > length:
            reason = f"tensor {quoted(name)} has {length} entries on its first axis, not {start} to {start + count}"
            raise RequestError(reason, parameter="start")
        shape = (count, *tensor.shape[1:]) if tensor.shape else ()
        return self._read_array(tensor, shape, start * math.prod(tensor.shape[1:]))

    def read(self, name: str, start: int = 0, count: int | None = None) -> np.ndarray:
        """Like `read_raw`, as float32: exact for BF16, F16, FP8 and small integers, rounded for F64 and large ones."""
        return to_float32(self.read_raw(name, start, count), self.tensor(name).dtype)

    def read_rows(self, name: str, start: int, count: int) -> np.ndarray:
        """Rows `start` to `start + count` as float32 `[count, last axis]`, counted over all axes but the last.

        Row `r` of expert `e` in a fused tensor `[experts, rows, width]` is row `e * rows + r`. Errors as in `read_raw`.
        """
        return to_float32(self.read_raw_rows(name, start, count), self.tensor(name).dtype)

    def read_raw_rows(self, name: str, start: int, count: int) -> np.ndarray:
        """Like `read_rows`, as they are stored."""
        tensor = self.tensor(name)
        width = tensor.shape[-1] if tensor.shape else 1
        rows = math.prod(tensor.shape[:-1])
        if start < 0 or count < 0 or start + count > rows:
            reason = f"tensor {quoted(name)} has {rows} rows, not {start} to {start + count}"
            raise RequestError(reason, parameter="start")
        return self._read_array(tensor, (count, width), start * width)

    def _read_array(self, tensor: CheckpointTensor, shape: tuple[int, ...], first: int) -> np.ndarray:
        """The elements from `first` on, as many as `shape` has, as they are stored."""
        what = f"tensor {quoted(tensor.name)}"
        dtype = storage_dtype(tensor.dtype, f"{tensor.file}: {what}")
        array = np.empty(shape, dtype)
        if array.nbytes:
            bits = array.reshape(-1).view(np.uint8)
            self._files[tensor.file].read_into(bits.data, tensor.offset + first * dtype.itemsize, what)
            if tensor.dtype == "BOOL" and bits.max() > 1:
                raise FileFormatError(tensor.file, "a boolean is neither 0 nor 1", offset=tensor.offset, field=what)
        return array

    def read_columns(self, name: str, start: int, count: int) -> np.ndarray:
        """Columns `start` to `start + count` of a matrix [rows, columns], as they are stored: [rows, count].

        Nothing else of it is read. Errors as in `read_raw`.
        """
        tensor = self.tensor(name)
        rows, columns = tensor.shape
        if start < 0 or count < 0 or start + count > columns:
            reason = f"tensor {quoted(name)} has {columns} columns, not {start} to {start + count}"
            raise RequestError(reason, parameter="start")
        if count == columns:
            return self._read_array(tensor, tensor.shape, 0)
        what = f"tensor {quoted(name)}"
        array = np.empty((rows, count), storage_dtype(tensor.dtype, f"{tensor.file}: {what}"))
        file, stride = self._files[tensor.file], columns * array.itemsize
        for row, bits in enumerate(array.view(np.uint8) if array.size else ()):
            file.read_into(bits.data, tensor.offset + row * stride + start * array.itemsize, what)
        return array

    def read_slice(self, name: str, index: int) -> np.ndarray:
        """Entry `index` of the first axis as float32: one expert of a fused tensor `[experts, …]`."""
        if not self.tensor(name).shape:
            raise RequestError(f"tensor {quoted(name)} is a scalar and has no entries", parameter="index")
        entry: np.ndarray = self.read(name, index, 1)[0]
        return entry

    def close(self) -> None:
        """Closes the files; closing twice is fine."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_plain_name(name: str) -> bool:
    """Whether a name from the index is that of a safetensors file in the folder itself."""
    return name.endswith(".safetensors") and name.isprintable() and not set(name) & set("/\\:") and name[0] != "."
