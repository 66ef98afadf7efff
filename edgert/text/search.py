"""Finding the first of several strings in text of which more may come."""

from __future__ import annotations

from collections.abc import Sequence


def first_hit(text: str, strings: Sequence[str], start: int = 0) -> tuple[int, str] | None:
    """Where at or after `start` the first whole string begins, and which it is; None where there is none.

    Of several that begin there, the one that comes first in `strings`.
    """
    places = [(text.find(string, start), order) for order, string in enumerate(strings)]
    at, order = min((place for place in places if place[0] >= 0), default=(-1, 0))
    return None if at < 0 else (at, strings[order])


def first_unfinished(text: str, strings: Sequence[str], start: int = 0) -> int:
    """Where at the end of `text` the first unfinished string begins; the text's length where none does."""
    longest = max(map(len, strings), default=1)
    for at in range(max(start, len(text) - longest + 1), len(text)):
        tail = text[at:]
        if any(len(string) > len(tail) and string.startswith(tail) for string in strings):
            return at
    return len(text)
