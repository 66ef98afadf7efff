"""What the user named as source: a checkpoint folder, a GGUF file, or a hub id in the local Hugging Face cache."""

from __future__ import annotations

import os
from pathlib import Path

from edgert_models.errors import RequestError

from edgert_quant.files import expanded
from edgert_quant.hub import HUB_ID, hub_cache, snapshot


def locate(source: str | Path) -> Path:
    """The folder or file. RequestError says what was looked for where there is neither."""
    path = expanded(source)
    if path.exists():
        return path
    if isinstance(source, str) and HUB_ID.fullmatch(source):
        folder = snapshot(source)
        if folder is None:
            raise RequestError(
                f"{source}: there is no such folder or file, "
                f"and no such model in the Hugging Face cache at {hub_cache()} (edgert pull)",
                parameter="source",
            )
        return folder
    raise RequestError(f"{source}: there is no such folder or file", parameter="source")


def model_name(path: Path) -> str:
    """What to call a model: its repository on the hub for a folder of the cache, else the folder's or file's name."""
    own = Path(os.path.normpath(path.absolute()))
    if own.parent.name == "snapshots" and own.parent.parent.name.startswith("models--"):
        return own.parent.parent.name.split("--")[-1]
    return own.name if path.is_dir() else own.stem
