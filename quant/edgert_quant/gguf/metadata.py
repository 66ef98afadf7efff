"""The key-value pairs of a GGUF file: a mapping, and getters that check type, count and range of what they return."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import numpy as np
from edgert_models.errors import FileFormatError

from edgert_quant.files import quoted
from edgert_quant.gguf.text import LazyStrings, LazyText
from edgert_quant.gguf.values import FLOAT_TYPES, INTEGER_TYPES, ValueType

_T = TypeVar("_T")


class _Required:
    """Stands for "no default: the key must be there"."""


REQUIRED: Final = _Required()


@dataclass
class Entry:
    """One value: its type, the type of its items where it is an array, and the offset of its key in the file."""

    value: object
    type: ValueType
    item_type: ValueType | None
    offset: int


def field_name(key: str) -> str:
    """A key as error messages name it."""
    return key if key.isprintable() and len(key) <= 80 else quoted(key)


class GgufMetadata(Mapping[str, object]):
    """The metadata of one file. Plain access gives int, float, bool, str, a list of str, or a read-only NumPy array.

    The getters raise `FileFormatError`, which names file, offset and key, when a value is missing and has no default,
    is of another type, or is out of range. A default is returned as it is.
    """

    def __init__(self, path: str | Path, entries: dict[str, Entry]) -> None:
        self.path = Path(path)
        self._entries = entries

    def __getitem__(self, key: str) -> object:
        entry = self._entries[key]
        if isinstance(entry.value, LazyText | LazyStrings):
            entry.value = entry.value.load()
        return entry.value

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def value_type(self, key: str) -> ValueType:
        """The type a value has in the file; for arrays `ARRAY`."""
        return self._entries[key].type

    def item_type(self, key: str) -> ValueType | None:
        """The type of an array's items, None where the value is no array."""
        return self._entries[key].item_type

    def stored_type(self, key: str) -> ValueType:
        """What `GgufWriter.add_metadata` wants to be told to store a value as it is: the items' type for arrays."""
        entry = self._entries[key]
        return entry.type if entry.item_type is None else entry.item_type  # UINT8 is 0, and false

    def count(self, key: str) -> int:
        """Items of an array, without decoding them; 1 for a single value."""
        value = self._entries[key].value
        return len(value) if isinstance(value, LazyStrings | list | np.ndarray) else 1

    def fail(self, key: str, reason: str) -> NoReturn:
        """Raises the `FileFormatError` that says what is wrong with the value of `key`."""
        offset = self._entries[key].offset if key in self._entries else None
        raise FileFormatError(self.path, reason, offset=offset, field=field_name(key))

    def string(self, key: str, default: _T | _Required = REQUIRED) -> str | _T:
        """A STRING."""
        if key not in self._entries:
            return self._default(key, default)
        value = self[key]
        return value if isinstance(value, str) else self._wrong_type(key, "a string")

    def integer(
        self, key: str, default: _T | _Required = REQUIRED, *, minimum: int | None = None, maximum: int | None = None
    ) -> int | _T:
        """A value of any of the eight integer types, within `minimum` and `maximum` (both inclusive)."""
        if key not in self._entries:
            return self._default(key, default)
        if self._entries[key].type not in INTEGER_TYPES:
            self._wrong_type(key, "an integer")
        value = self[key]
        assert isinstance(value, int)
        self._check_range(key, value, value, minimum, maximum)
        return value

    def number(
        self,
        key: str,
        default: _T | _Required = REQUIRED,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> float | _T:
        """A finite number of any integer or float type, within `minimum` and `maximum` (both inclusive)."""
        if key not in self._entries:
            return self._default(key, default)
        if self._entries[key].type not in INTEGER_TYPES | FLOAT_TYPES:
            self._wrong_type(key, "a number")
        value = self[key]
        assert isinstance(value, int | float)
        if not math.isfinite(value):
            self.fail(key, f"is {value}, not a finite number")
        self._check_range(key, value, value, minimum, maximum)
        return float(value)

    def boolean(self, key: str, default: _T | _Required = REQUIRED) -> bool | _T:
        """A BOOL."""
        if key not in self._entries:
            return self._default(key, default)
        value = self[key]
        return value if isinstance(value, bool) else self._wrong_type(key, "a boolean")

    def booleans(self, key: str, default: _T | _Required = REQUIRED, *, count: int | None = None) -> list[bool] | _T:
        """An array of BOOLs, or of integers that are all 0 or 1, of `count` items where that is given."""
        if key not in self._entries:
            return self._default(key, default)
        kind, values = self._entries[key].item_type, np.asarray(self[key])
        if kind is not ValueType.BOOL and not (values.dtype.kind in "iu" and np.isin(values, (0, 1)).all()):
            self._wrong_type(key, "an array of booleans")
        self._check_count(key, count)
        return [bool(item) for item in np.asarray(self[key])]

    def strings(self, key: str, default: _T | _Required = REQUIRED, *, count: int | None = None) -> list[str] | _T:
        """An array of strings, of `count` items where that is given."""
        if key not in self._entries:
            return self._default(key, default)
        value = self[key]
        if not isinstance(value, list):
            self._wrong_type(key, "an array of strings")
        self._check_count(key, count)
        return value

    def integers(
        self,
        key: str,
        default: _T | _Required = REQUIRED,
        *,
        count: int | None = None,
        minimum: int | None = None,
        maximum: int | None = None,
    ) -> np.ndarray | _T:
        """An array of any integer type, as int64, of `count` items where that is given.

        With `count`, a single integer stands for as many equal ones: per-layer values are stored either way.
        """
        if key not in self._entries:
            return self._default(key, default)
        entry = self._entries[key]
        if self.stored_type(key) not in INTEGER_TYPES or (entry.item_type is None and count is None):
            self._wrong_type(key, "an array of integers")
        found = np.atleast_1d(np.asarray(self[key]))
        if found.size:
            low, high = int(found.min()), int(found.max())
            self._check_range(key, low, high, minimum, maximum)
            self._check_range(key, low, high, None, (1 << 63) - 1)
        array: np.ndarray = found.astype(np.int64)
        if entry.item_type is None:
            return np.repeat(array, count or 1)
        self._check_count(key, count)
        return array

    def numbers(self, key: str, default: _T | _Required = REQUIRED, *, count: int | None = None) -> np.ndarray | _T:
        """An array of finite numbers of any integer or float type, as float64, of `count` items where that is given."""
        if key not in self._entries:
            return self._default(key, default)
        if self._entries[key].item_type not in INTEGER_TYPES | FLOAT_TYPES:
            self._wrong_type(key, "an array of numbers")
        array: np.ndarray = np.asarray(self[key]).astype(np.float64)
        self._check_count(key, count)
        if not np.isfinite(array).all():
            self.fail(key, f"item {int(np.argmin(np.isfinite(array)))} is not a finite number")
        return array

    def _default(self, key: str, default: _T | _Required) -> _T:
        if isinstance(default, _Required):
            self.fail(key, "is missing from the metadata")
        return default

    def _wrong_type(self, key: str, wanted: str) -> NoReturn:
        entry = self._entries[key]
        found = entry.type.name if entry.item_type is None else f"an array of {entry.item_type.name}"
        self.fail(key, f"is {found}, not {wanted}")

    def _check_count(self, key: str, count: int | None) -> None:
        if count is not None and self.count(key) != count:
            self.fail(key, f"has {self.count(key)} items, not {count}")

    def _check_range(self, key: str, low: float, high: float, minimum: float | None, maximum: float | None) -> None:
        if minimum is not None and low < minimum:
            self.fail(key, f"is {low}, below {minimum}")
        if maximum is not None and high > maximum:
            self.fail(key, f"is {high}, above {maximum}")
