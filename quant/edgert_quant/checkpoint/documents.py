"""JSON files of a checkpoint, parsed within limits of size, depth, number of values and memory.

A JSON text of `[[],[],…` takes twenty times its size in memory once parsed, and one of 100 MB of brackets can hold a
parser for seconds: so brackets and commas are counted before anything is parsed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

from edgert_models.errors import FileFormatError

from edgert_quant.files import InputFile, human_bytes, quoted

MAX_DEPTH = 64
_MAX_WIDE_BYTES = 16 << 20


def read_json(path: Path, *, max_bytes: int, max_values: int) -> object:
    """Parses a JSON file. `FileFormatError` when it is too large, damaged, nested too deeply, or has a key twice."""
    file = InputFile(path)
    try:
        if file.size > max_bytes:
            raise FileFormatError(path, f"has {human_bytes(file.size)}, above the limit of {human_bytes(max_bytes)}")
        data = file.read(0, file.size, "JSON")
    finally:
        file.close()
    return parse_json(path, data, max_values=max_values)


def parse_json(
    path: Path, data: bytes, *, max_values: int, base: int = 0, field: str = "JSON", finite: bool = False
) -> object:
    """Parses JSON that stands at byte `base` of `path`. `finite` refuses `NaN` and `Infinity`, as JSON does."""

    def fail(reason: str, at: int = 0) -> NoReturn:
        raise FileFormatError(path, reason, offset=base + at, field=field)

    def refuse_constant(name: str) -> NoReturn:
        fail(f"{name} is not a JSON number")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    fail(f"the key {quoted(key)} is there twice")
                seen.add(key)
        return result

    values = 1 + sum(data.count(mark) for mark in (b",", b":", b"[", b"{"))
    if values > max_values:
        fail(f"holds {values} values and keys, above the limit of {max_values}")
    if not data.isascii() and len(data) > _MAX_WIDE_BYTES:
        fail(f"is larger than {human_bytes(_MAX_WIDE_BYTES)} and not ASCII")
    try:
        text = data.decode("utf-8-sig" if base == 0 else "utf-8")
        value: object = json.loads(text, object_pairs_hook=unique, parse_constant=refuse_constant if finite else None)
    except UnicodeDecodeError as error:
        fail("is not valid UTF-8", error.start)
    except json.JSONDecodeError as error:
        fail(f"is not valid JSON: {error.msg}", len(error.doc[: error.pos].encode()))
    except RecursionError:
        fail(f"is nested more than {MAX_DEPTH} deep")
    except ValueError as error:  # an integer of thousands of digits
        fail(f"is not valid JSON: {error}")
    if _is_deep(value):
        fail(f"is nested more than {MAX_DEPTH} deep")
    return value


def _is_deep(value: object) -> bool:
    """Whether lists and objects nest more than `MAX_DEPTH` deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        children = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in children if isinstance(child, dict | list)]
    return bool(level)
