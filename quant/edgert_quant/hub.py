"""The local cache of the Hugging Face hub, in huggingface_hub's layout: shared with other tools, only read here."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgert_quant.files import expanded

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""`organization/name`."""


def hub_cache() -> Path:
    """Where `huggingface_hub` keeps what it downloads (its documented variables, and its default)."""
    if named := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return expanded(os.path.expandvars(named))
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return expanded(os.path.expandvars(home)) / "hub"


def repository_folder(hub_id: str) -> Path:
    """Where the cache has a model."""
    return hub_cache() / f"models--{hub_id.replace('/', '--')}"


def snapshots(hub_id: str) -> list[Path]:
    """The folders of a model's revisions that are in the cache: the main branch first, then the newest."""
    folder = repository_folder(hub_id)
    found = sorted(folder.glob("snapshots/*/"), key=lambda path: path.stat().st_mtime, reverse=True)
    main = folder / "refs" / "main"
    if main.is_file():
        revision = main.read_text(encoding="ascii", errors="replace").strip()
        found.sort(key=lambda path: path.name != revision)
    return found


def snapshot(hub_id: str) -> Path | None:
    """The folder of a model's checkpoint; where there is none, of its main branch; None where nothing is cached."""
    found = snapshots(hub_id)
    return next((path for path in found if (path / "config.json").is_file()), found[0] if found else None)
