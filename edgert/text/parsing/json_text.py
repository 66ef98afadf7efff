"""JSON values inside a text (RFC 8259), passed on as they are while they are checked."""

from __future__ import annotations

import json
import re

from edgert.text.parsing.scanner import Malformed, Pieces, Scanner, Wait, joined

_DEEPEST = 64
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_SCALAR_LETTERS = re.compile(r"[-+.0-9A-Za-z]*")
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")
_HEX = re.compile(r"\\u[0-9A-Fa-f]{4}")


def value(text: Scanner, depth: int = 0) -> Pieces[None]:
    """Any value, read as soon as it is certain to be JSON so far; Malformed where it is none."""
    first = yield from text.peek()
    if first == '"':
        yield from string(text)
    elif first in ("{", "["):
        if depth == _DEEPEST:
            raise Malformed
        yield from _container(text, depth)
    else:
        yield (yield from _scalar(text))


def string(text: Scanner) -> Pieces[None]:
    """A string, with its quotation marks."""
    yield from text.expect('"')
    yield '"'
    while True:
        first = yield from text.peek()
        if plain := _PLAIN.match(text.ahead):
            yield text.take(plain.end())
        elif first == "\\":
            second = (yield from text.peek(2))[1:]
            if second == "u":
                if not _HEX.fullmatch((yield from text.peek(6))):
                    raise Malformed
                yield text.take(6)
            elif second and second in '"\\/bfnrt':
                yield text.take(2)
            else:
                raise Malformed
        elif first == '"':
            yield text.take(1)
            return
        else:
            raise Malformed


def text_of_string(text: Scanner) -> Wait[str]:
    """What a string says."""
    written, _ = yield from joined(string(text))
    said: str = json.loads(written)
    try:
        said.encode("utf-8")
    except UnicodeEncodeError:  # an escape of half a character
        raise Malformed from None
    return said


def _container(text: Scanner, depth: int) -> Pieces[None]:
    opening = text.take(1)
    closing = "}" if opening == "{" else "]"
    yield opening
    yield from _space(text)
    if (yield from text.accept(closing)):
        yield closing
        return
    while True:
        if opening == "{":
            yield from string(text)
            yield from _space(text)
            yield from text.expect(":")
            yield ":"
            yield from _space(text)
        yield from value(text, depth + 1)
        yield from _space(text)
        if (yield from text.accept(closing)):
            yield closing
            return
        yield from text.expect(",")
        yield ","
        yield from _space(text)


def _space(text: Scanner) -> Pieces[None]:
    while (yield from text.peek()) in (" ", "\t", "\r", "\n"):
        yield text.take(1)


def _scalar(text: Scanner) -> Wait[str]:
    """A number or a word, whole: where it ends shows only with what comes after it."""
    found = yield from text.run(_SCALAR_LETTERS)
    if not _SCALAR.fullmatch(found):
        raise Malformed
    return found
