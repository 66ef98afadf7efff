"""What a file says: its keys and values, and the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from edgert_models.spec import MAX_LAYERS

Value = int | float | str | bool | list[bool] | list[int]


class Metadata(Protocol):
    """Typed access to a file's key/values; each getter raises a FileFormatError naming file and key."""

    def __contains__(self, key: object, /) -> bool: ...

    def string(self, key: str, default: str = ...) -> str:
        """The string under `key`."""

    def integer(self, key: str, default: int = ...) -> int:
        """The integer under `key`."""

    def number(self, key: str, default: float = ...) -> float:
        """The integer or float under `key`, as a float."""

    def integers(self, key: str, default: list[int] = ..., *, count: int) -> Iterable[int]:
        """The array of `count` integers under `key`; a single one stands for as many equal ones."""

    def boolean(self, key: str, default: bool = ...) -> bool:
        """The boolean under `key`."""

    def booleans(self, key: str, default: list[bool] = ..., *, count: int | None = None) -> list[bool]:
        """The array of (`count`) booleans under `key`."""


def first(shapes: Mapping[str, tuple[int, ...]], layers: int, name: str) -> tuple[int, ...]:
    """The shape of a tensor in the first layer that has it, (0,) if none has."""
    found = (shapes.get(f"blk.{i}.{name}") for i in range(min(layers, MAX_LAYERS)))
    return next((shape for shape in found if shape), (0,))


def has(shapes: Mapping[str, tuple[int, ...]], layers: int, name: str) -> bool:
    """Whether any layer has a tensor."""
    return first(shapes, layers, name) != (0,)
