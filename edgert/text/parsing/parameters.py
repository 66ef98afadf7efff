"""Parameters that are written as plain text between tags: what they mean is for the tool's schema to say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgert.text.parsing.python_text import WORDS
from edgert.text.parsing.scanner import Malformed, Pieces, Scanner, Wait, joined
from edgert.text.parsing.schemas import kind_of, schema_types

_MOST_CUTS = 64


def member(text: Scanner, key: str, schema: Mapping[str, Any], *ends: str, first: bool) -> Pieces[None]:
    """Plain text up to one of `ends`, as the member `key` of a JSON object; the `first` opens it with `{`.

    Where `schema` wants a text, it is passed on as it comes. Anything else is read as JSON, and stays a text where that
    does not give a value of the schema's types.
    """
    yield f"{'{' if first else ', '}{json.dumps(key, ensure_ascii=False)}: "
    types = schema_types(schema)
    if types == {"string"}:
        yield '"'
        if (yield from escaped(text.until(*ends))) is None:
            raise Malformed
        yield '"'
    else:
        yield as_json((yield from _whole(text, *ends)), types)


def _whole(text: Scanner, *ends: str) -> Wait[str]:
    """Text up to one of `ends`, which texts inside of JSON may have in them."""
    written, end = yield from joined(text.until(*ends))
    for _ in range(_MOST_CUTS):
        if end is None or not _is_cut(written):
            break
        more, again = yield from joined(text.until(*ends))
        written, end = written + end + more, again
    if end is None:
        raise Malformed
    return written


def _is_cut(written: str) -> bool:
    """Whether this is the beginning of a list or an object that ends inside a text."""
    if not written.lstrip().startswith(("[", "{")):
        return False
    try:
        json.loads(written)
    except json.JSONDecodeError as error:
        return error.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        pass
    return False


def as_json(written: str, types: set[str]) -> str:
    """The JSON of a value that is written as plain text; `types` are JSON schema's, none of them means any."""
    bare = written.strip()
    found = WORDS.get(bare, bare)
    try:
        kind = kind_of(json.loads(found, parse_constant=_refuse))
    except (ValueError, RecursionError):
        kind = "text"
    fits = kind in types or (kind == "integer" and "number" in types) or (not types and kind != "text")
    if fits and not (kind == "string" and "string" in types):  # there a quotation mark is part of the text
        return found
    return json.dumps(written, ensure_ascii=False)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def escaped(pieces: Pieces[str | None]) -> Pieces[str | None]:
    """Text as the inside of a JSON string."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as stop:
            end: str | None = stop.value
            return end
        yield None if piece is None else json.dumps(piece, ensure_ascii=False)[1:-1]
