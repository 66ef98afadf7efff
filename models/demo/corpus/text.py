"""Running text: the Python manual's topics and the standard library's docstrings (PSF licence), from any CPython."""

import ast
import sysconfig
from functools import cache
from importlib import import_module
from pathlib import Path

from demo.corpus.sample import is_held_out

_SHORTEST = 200  # characters; shorter docstrings say little
_SKIPPED = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "pydoc_data", "turtledemo"}
)


def _docstrings(source: str) -> list[str]:
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, nodes))
    return [text for text in found if text and len(text) >= _SHORTEST]


@cache
def documents() -> tuple[tuple[str, str], ...]:
    """All documents as (name, text) in a fixed order. The Python version decides what they say."""
    topics: dict[str, str] = import_module("pydoc_data.topics").topics
    found = [(f"topic {name}", text.strip()) for name, text in sorted(topics.items())]
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if _SKIPPED.isdisjoint(relative.parts):
            try:
                texts = _docstrings(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
            found += [(f"{relative.as_posix()} {index}", text) for index, text in enumerate(texts)]
    return tuple(found)


def training_text() -> list[str]:
    """The documents to train on."""
    return [text for name, text in documents() if not is_held_out(name)]


def held_out_text() -> list[str]:
    """The documents kept from training, less those whose very text is also found elsewhere in the library."""
    trained = set(training_text())
    return [text for name, text in documents() if is_held_out(name) and text not in trained]
