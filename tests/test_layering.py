"""Imports point one way only: models ← quant ← runtimes ← edgert."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "edgert_models": ROOT / "models/edgert_models",
    "edgert_quant": ROOT / "quant/edgert_quant",
    "edgert_runtimes": ROOT / "runtimes/edgert_runtimes",
    "edgert": ROOT / "edgert",
}
LAYERS = list(FOLDERS)
MODULE_NAME = re.compile(r"edgert_(models|quant|runtimes)(\.\w+)+")
SIBLINGS = ("cpu", "mlx", "cuda", "reference")


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import packages by their absolute name"
            yield node.module or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE_NAME.fullmatch(node.value):
            yield node.value  # names handed to import_module count as well


ALL = [pytest.param(name, path, id=name) for name, path in modules()]


@pytest.mark.parametrize(("module", "path"), ALL)
def test_imports_point_downwards(module: str, path: Path) -> None:
    layer = LAYERS.index(module.split(".")[0])
    for imported in imports(path):
        root = imported.split(".")[0]
        if root in LAYERS:
            assert LAYERS.index(root) <= layer, f"{module} imports {imported}"
        if layer == 0:
            assert root in LAYERS or root in sys.stdlib_module_names, f"{module} imports {imported}"


@pytest.mark.parametrize(("module", "path"), ALL)
def test_siblings_do_not_know_each_other(module: str, path: Path) -> None:
    parts = module.split(".")
    for imported in imports(path):
        target = imported.split(".")
        if parts[0] == "edgert_runtimes" and len(parts) > 1 and parts[1] in SIBLINGS and target[0] == "edgert_runtimes":
            others = [name for name in SIBLINGS if name != parts[1]]
            assert target[1] not in others, f"{module} imports {imported}"
        if module.startswith("edgert.engine") and target[0] == "edgert" and len(target) > 1:
            assert target[1] not in ("text", "cli", "server"), f"{module} imports {imported}"


def test_no_utils() -> None:
    assert not [name for name, _ in modules() if "util" in name]
