"""What the user named as source: a checkpoint folder, a GGUF file, or a hub id in the local Hugging Face cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgert_models.errors import RequestError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"[0-9a-f]{40,64}")


def locate(source: str | Path) -> Path:
    """The folder or file. RequestError says what was looked for where there is neither."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        snapshot = _cached(source)
        if snapshot is None:
            raise RequestError(
                f"{source}: there is no such folder or file, "
                f"and no such model in the Hugging Face cache at {hub_cache()}",
                parameter="source",
            )
        return snapshot
    raise RequestError(f"{source}: there is no such folder or file", parameter="source")


def hub_cache() -> Path:
    """Where `huggingface_hub` keeps what it downloads (its documented variables, and its default)."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def model_name(path: Path) -> str:
    """What to call a model: its repository on the hub for a folder of the cache, else the folder's or file's name."""
    own = Path(os.path.normpath(path.absolute()))
    if own.parent.name == "snapshots" and own.parent.parent.name.startswith("models--"):
        return own.parent.parent.name.split("--")[-1]
    return own.name if path.is_dir() else own.stem


def _cached(hub_id: str) -> Path | None:
    """The snapshot of the main branch, or the only one."""
    folder = hub_cache() / f"models--{hub_id.replace('/', '--')}"
    main = folder / "refs" / "main"
    if main.is_file():
        revision = main.read_text(encoding="ascii", errors="replace").strip()
        snapshot = folder / "snapshots" / revision
        if _REVISION.fullmatch(revision) and snapshot.is_dir():
            return snapshot
    snapshots = sorted(folder.glob("snapshots/*/"))
    return snapshots[0] if len(snapshots) == 1 else None
