"""Pieces of grammars in llguidance's form of Lark (`docs/syntax.md` of guidance-ai/llguidance)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

ANY_TEXT = "/(?s:.*)/"
_SPACE = r"( |\n{1,2}[ \t]{0,20})"  # between the parts of JSON; a small model may else write nothing but space
_PLACES = re.compile("(NAME|KEY|NUMBER|GAP)")
_SLASHED = re.compile(r"\\.|/|\n", re.DOTALL)

Text = Callable[[str], str]
"""A text of the model's own form as Lark: which of its parts are control tokens depends on the vocabulary."""


def quoted(text: str) -> str:
    """A text as Lark has it."""
    return json.dumps(text, ensure_ascii=False)


def expression(regex: str) -> str:
    """A regular expression as Lark has it, between slashes on one line."""
    return f"/{_SLASHED.sub(_slashed, regex)}/"


def _slashed(found: re.Match[str]) -> str:
    return {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}.get(found[0], found[0])


def json_value(schema: Mapping[str, Any]) -> str:
    """Any value of a schema. Its own `x-guidance`, with which a schema could ask to be ignored, is replaced."""
    return f"%json {json.dumps({**schema, 'x-guidance': {'whitespace_pattern': _SPACE}})}"


def spelled(written: str, text: Text, name: str = "", key: str = "") -> str:
    """What a shape says is written: see `CallShape`. `key` is Lark, everything else plain text."""
    parts: list[str] = []
    plain = ""
    for place, part in enumerate(_PLACES.split(written)):
        if place % 2 == 0 or part == "NAME":
            plain += name if place % 2 else part
            continue
        parts.append(text(plain) if plain else "")
        plain = ""
        parts.append({"NUMBER": "/[0-9]{1,4}/", "GAP": r'"\n"?', "KEY": key}[part])
    return " ".join(filter(None, [*parts, text(plain) if plain else ""]))
