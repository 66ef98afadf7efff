"""What a step of a long run has done, in files, so that a run which is stopped goes on from there."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edgert_quant.gguf.output import write_whole
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class Kept:
    """Groups of arrays by name, each in a file NAME.npz of a folder. The folder's own name tells what the work depends
    on: what was done with another model, text or plan is not found.
    """

    def __init__(self, work: Path, step: str, *depends: object) -> None:
        digest = hashlib.sha256("\n".join(map(str, depends)).encode()).hexdigest()
        self._folder = work / f"{step}-{digest[:16]}"

    def get(self, name: str) -> Arrays | None:
        """What was put, or None."""
        try:
            with (self._folder / f"{name}.npz").open("rb") as file, np.load(file, allow_pickle=False) as found:
                return dict(found)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # not there, or damaged: it is made again
            return None

    def put(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write a group whole, in place of what has its name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays)
        write_whole(self._folder / f"{name}.npz", stream.getvalue())
