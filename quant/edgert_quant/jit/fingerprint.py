"""What a kernel was made from: the files and constants that its code refers to, as one hash."""

from __future__ import annotations

import hashlib
import marshal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

FOREIGN = frozenset({"numba", "numpy", "llvmlite"})
"""Their versions are in the key of the cache; the standard library's is Python's."""

_WRAPPED = ("__func__", "fget", "__wrapped__")
"""Where static methods, properties and decorated functions have what they were made of."""


def fingerprint(function: FunctionType, extra: tuple[object, ...] = ()) -> str:
    """SHA-256 over the source files of `function` and of every function, class and module of ours that it names,
    however far away, and over the constants that it and those functions name.
    """
    visitor = _Visitor()
    visitor.visit(function)
    for value in extra:
        visitor.visit(value)
    digest = hashlib.sha256()
    for content in sorted(_file_digest(path) for path in visitor.files):
        digest.update(content)
    for text in visitor.constants:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


class _Visitor:
    def __init__(self) -> None:
        self.files: set[str] = set()
        self.constants: list[str] = []
        self._seen: set[int] = set()
        self._classes: set[type] = set()
        self._kept: list[object] = []  # so that an id stays that of the object it was taken from

    def visit(self, value: Any, name: str = "") -> None:
        if value is None or isinstance(value, (bool, int, float, str, bytes, complex, Enum)):
            self.constants.append(f"{name}={type(value).__name__}:{value!r}")
            return
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._kept.append(value)
        inner = getattr(value, "function", None) or getattr(value, "__wrapped__", None)  # Kernel, …; what is cached
        if isinstance(value, FunctionType):
            self._visit_function(value)
        elif isinstance(inner, FunctionType):
            self.visit(inner, name)
        elif isinstance(value, partial):
            for part in (value.func, value.args, value.keywords):
                self.visit(part, name)
        elif isinstance(value, ModuleType):
            self._add_module(value.__name__)
        elif isinstance(value, type):
            self._visit_class(value)
        elif isinstance(value, (tuple, list, set, frozenset)):
            for item in sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value:
                self.visit(item, name)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self.visit(item, f"{name}[{key!r}]")
        elif is_dataclass(value):
            self._visit_class(type(value))
            for field in fields(value):
                self.visit(getattr(value, field.name), f"{name}.{field.name}")
        elif hasattr(value, "tobytes") and hasattr(value, "dtype"):
            self.constants.append(f"{name}={value.dtype}{value.shape}:{hashlib.sha256(value.tobytes()).hexdigest()}")
        else:
            self._visit_class(type(value))

    def _visit_class(self, kind: type) -> None:
        """Its file, and what its methods and those of its bases name."""
        for base in kind.__mro__:
            if base not in self._classes and _is_ours(base.__module__):
                self._classes.add(base)
                self._add_module(base.__module__)
                for member in vars(base).values():
                    for function in (member, *(getattr(member, name, None) for name in _WRAPPED)):
                        if isinstance(function, FunctionType):
                            self._visit_function(function)

    def _visit_function(self, function: FunctionType) -> None:
        if not _is_ours(function.__module__ or ""):
            return
        if _is_file(function.__code__.co_filename):
            self.files.add(function.__code__.co_filename)
        else:  # made by exec, or packed away
            self.constants.append(hashlib.sha256(marshal.dumps(function.__code__)).hexdigest())
        self.constants.append(f"{function.__qualname__}/{function.__code__.co_firstlineno}")
        for default in function.__defaults__ or ():
            self.visit(default, function.__qualname__)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for name in _all_names(function.__code__):
            if name in cells:
                self.visit(cells[name].cell_contents, name)
            elif name in function.__globals__:
                self.visit(function.__globals__[name], name)

    def _add_module(self, name: str) -> None:
        path = getattr(sys.modules.get(name), "__file__", None)
        if path and _is_ours(name):
            self.files.add(path)


def _is_ours(module: str) -> bool:
    root = module.partition(".")[0]
    return root not in FOREIGN and root not in sys.stdlib_module_names


@cache
def _all_names(code: CodeType) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_names(code)))


def _names(code: CodeType) -> Iterator[str]:
    """Every name that the code may look up, those of nested functions included."""
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@cache
def _file_digest(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


@cache
def _is_file(path: str) -> bool:
    return Path(path).is_file()
