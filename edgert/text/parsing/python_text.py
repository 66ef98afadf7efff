"""Calls and literals of Python's inside a text, made JSON while they are read.

Literals are texts, numbers, constants, lists, tuples and dicts (Python's reference, "Literals"); JSON's constants too,
which models mix in.
"""

from __future__ import annotations

import json
import re

from edgert.text.parsing.base import CallArguments, CallEnd, Calls, Steps, each
from edgert.text.parsing.scanner import Malformed, Pieces, Scanner, Wait

WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
"""Constants, as JSON writes them."""

_DEEPEST = 64
_NAME = re.compile(r"(?:[^\W\d][\w.-]*)?")
_WORD = re.compile(r"[-+.\w]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_PLAIN = {quote: re.compile(rf"[^\\{quote}]+") for quote in "'\""}
_UNICODE = re.compile(r"\\u[0-9A-Fa-f]{4}")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": "", "\\": "\\", "'": "'", '"': '"'}


def call_list(text: Scanner, calls: Calls) -> Steps[None]:
    """Calls in brackets, `[f(a=1), g()]`, after the `[`; Malformed where one is none, or not of a function given."""
    while True:
        yield from text.skip_space()
        yield from _call(text, calls)
        yield from text.skip_space()
        if (yield from text.accept("]")):
            return
        yield from text.expect(",")


def _call(text: Scanner, calls: Calls) -> Steps[None]:
    """One call with named arguments; its arguments are one JSON object."""
    name = yield from text.run(_NAME)
    yield from text.expect("(")
    if name not in calls.functions:
        raise Malformed
    start = calls.start(name)
    yield start
    yield from each(_arguments(text), lambda piece: CallArguments(start.index, piece))
    yield CallEnd(start.index)


def _arguments(text: Scanner) -> Pieces[None]:
    separator = "{"
    yield from text.skip_space()
    while not (yield from text.accept(")")):
        name = yield from text.run(_NAME)
        yield from text.skip_space()
        yield from text.expect("=")
        yield from text.skip_space()
        yield f"{separator}{json.dumps(name, ensure_ascii=False)}: "
        yield from literal(text)
        separator = ", "
        yield from text.skip_space()
        if (yield from text.accept(",")):
            yield from text.skip_space()
        elif (yield from text.peek()) != ")":
            raise Malformed
    yield "{}" if separator == "{" else "}"


def literal(text: Scanner, depth: int = 0) -> Pieces[None]:
    """A literal as JSON; Malformed where none comes."""
    first = yield from text.peek()
    if first in ("'", '"'):
        yield from _string(text)
    elif first in ("[", "(", "{"):
        if depth == _DEEPEST:
            raise Malformed
        yield from _collection(text, depth)
    else:
        yield (yield from scalar(text))


def _string(text: Scanner) -> Pieces[None]:
    quote = yield from text.peek()
    if quote not in ("'", '"'):
        raise Malformed
    text.take(1)
    yield '"'
    while not (yield from text.accept(quote)):
        if plain := _PLAIN[quote].match(text.ahead):
            yield _inside(text.take(plain.end()))
        elif (yield from text.peek()) == "\\":
            yield (yield from _escape(text))
        else:
            raise Malformed
    yield '"'


def _escape(text: Scanner) -> Wait[str]:
    """An escape as JSON has it; a backslash that begins none stands for itself."""
    letter = (yield from text.peek(2))[1:]
    if letter == "u" and _UNICODE.fullmatch((yield from text.peek(6))):
        return text.take(6)
    if letter in _ESCAPES:
        text.take(2)
        return _inside(_ESCAPES[letter])
    text.take(1)
    return _inside("\\")


def _inside(text: str) -> str:
    """Text as the inside of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _collection(text: Scanner, depth: int) -> Pieces[None]:
    opening = text.take(1)
    closing = {"[": "]", "(": ")", "{": "}"}[opening]
    keyed = opening == "{"
    yield "{" if keyed else "["
    separator = ""
    yield from text.skip_space()
    while not (yield from text.accept(closing)):
        yield separator
        separator = ", "
        if keyed:
            yield from _string(text)
            yield from text.skip_space()
            yield from text.expect(":")
            yield ": "
            yield from text.skip_space()
        yield from literal(text, depth + 1)
        yield from text.skip_space()
        if (yield from text.accept(",")):
            yield from text.skip_space()
        elif (yield from text.peek()) != closing:
            raise Malformed
    yield "}" if keyed else "]"


def scalar(text: Scanner) -> Wait[str]:
    """A number or a constant, whole."""
    word = yield from text.run(_WORD)
    if word in WORDS:
        return WORDS[word]
    if not _NUMBER.fullmatch(word):
        raise Malformed
    return word
