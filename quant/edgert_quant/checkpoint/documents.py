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


def read_json(path: Path, *, max_bytes: int, max_values: int) -> object:
    """Parses a JSON file. `FileFormatError` when it is too large, damaged, nested too deeply, or has a key twice."""
    file = InputFile(path)
    try:
        if file.size > max_bytes:
            raise FileFormatError(path, f"has {human_bytes(file.size)}, above the limit of {human_bytes(max_bytes)}")
        return parse_json(file, 0, file.size, "JSON", max_values=max_values)
    finally:
        file.close()


def parse_json(
    file: InputFile, offset: int, count: int, field: str, *, max_values: int, max_wide_bytes: int | None = None
) -> object:
    """Parses the JSON in `count` bytes from `offset`. `FileFormatError` names the byte where it is wrong.

    `NaN` and `Infinity` are accepted, as configurations have them. `max_wide_bytes` limits text that is not ASCII: for
    each byte of it Python may need four.
    """
    data = file.read(offset, count, field)  # freed before the text is parsed: nobody else holds it

    def fail(reason: str, at: int = 0) -> NoReturn:
        raise FileFormatError(file.path, reason, offset=offset + at, field=field)

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
    if max_wide_bytes is not None and count > max_wide_bytes and not data.isascii():
        fail(f"is larger than {human_bytes(max_wide_bytes)} and not ASCII")
    try:
        text = data.decode("utf-8-sig")
        del data
        value: object = json.loads(text, object_pairs_hook=unique)
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
