"""The local cache of the Hugging Face hub, in huggingface_hub's layout: shared with other tools, only read here."""

from __future__ import annotations

import os
import re
from pathlib import Path

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""`organization/name`."""

_REVISION = re.compile(r"[0-9a-f]{40,64}")


def hub_cache() -> Path:
    """Where `huggingface_hub` keeps what it downloads (its documented variables, and its default)."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def snapshot(hub_id: str) -> Path | None:
    """The folder of a model's main branch, or of its only revision; None where it is not in the cache."""
    folder = hub_cache() / f"models--{hub_id.replace('/', '--')}"
    main = folder / "refs" / "main"
    if main.is_file():
        revision = main.read_text(encoding="ascii", errors="replace").strip()
        if _REVISION.fullmatch(revision) and (folder / "snapshots" / revision).is_dir():
            return folder / "snapshots" / revision
    snapshots = sorted(folder.glob("snapshots/*/"))
    return snapshots[0] if len(snapshots) == 1 else None
