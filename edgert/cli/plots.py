"""Pictures, by matplotlib where it is installed; it is no dependency."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgert_models.errors import EdgertError, RequestError


def check_plot(path: Path) -> None:
    """Refuse early what would fail late."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise RequestError(f"--plot: {path.name} is none of .png, .svg and .pdf", parameter="plot")
    if not path.absolute().parent.is_dir():
        raise RequestError(f"--plot: there is no folder {path.absolute().parent}", parameter="plot")
    if find_spec("matplotlib") is None:
        raise EdgertError("--plot needs matplotlib: pip install matplotlib")


def figure_of(width: float = 7, height: float = 4.5) -> Any:
    """An empty figure, in inches."""
    return import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
