"""What the hub's cache on this machine has."""

from __future__ import annotations

from pathlib import Path

from edgert_quant.hub import snapshots

from edgert.hub.files import GgufSet, gguf_sets


def cached_sets(repository: str) -> dict[GgufSet, Path]:
    """The GGUF models of a repository, each with the folder that its names are in; of several revisions the newest."""
    found: dict[str, tuple[GgufSet, Path]] = {}
    for folder in snapshots(repository):
        for one in gguf_sets(names_in(folder)):
            if one.first not in found or (found[one.first][0].missing and not one.missing):
                found[one.first] = one, folder
    return dict(found.values())


def names_in(folder: Path) -> list[str]:
    """The files below a folder, as the hub names them."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
