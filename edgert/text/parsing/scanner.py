"""Text that comes in pieces, read by generators that wait where they need more of it."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TypeAlias, TypeVar

from edgert.text.search import first_hit, first_unfinished

T = TypeVar("T")
Wait: TypeAlias = Generator[None, None, T]
"""Yields None until there is enough text to return."""
Pieces: TypeAlias = Generator[str | None, None, T]
"""Yields text as soon as it is certain, and None to wait for more."""


class Malformed(Exception):  # noqa: N818 — a way to leave a grammar, no error that anybody sees
    """The text is not what the grammar wants here."""


class Scanner:
    """A cursor in a text that grows until it is closed.

    What is read never depends on where the pieces ended: every method waits until the text decides, or is closed.
    """

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._closed = False
        self._marked: list[str] | None = None

    def add(self, text: str) -> None:
        """More text."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def close(self) -> None:
        """No more text comes."""
        self._closed = True

    def mark(self, before: str = "") -> None:
        """Remember what is read from here on, and `before`, which was read just now."""
        self._marked = [before]

    def marked(self) -> str:
        """What has been read since the mark."""
        return "".join(self._marked or ())

    def unmark(self) -> None:
        """Remember no more."""
        self._marked = None

    def more(self) -> Wait[bool]:
        """Wait for more text; False where none comes."""
        if self._closed:
            return False
        yield None
        return True

    @property
    def ahead(self) -> str:
        """The text that is there and has not been read."""
        return self._text[self._at :]

    def take(self, count: int) -> str:
        """Read `count` characters, which must be there."""
        taken = self._text[self._at : self._at + count]
        self._at += count
        if self._marked is not None:
            self._marked.append(taken)
        return taken

    def peek(self, count: int = 1) -> Wait[str]:
        """The next `count` characters, not yet read; fewer only at the end of the text."""
        while len(self._text) - self._at < count and (yield from self.more()):
            pass
        return self._text[self._at : self._at + count]

    def accept(self, literal: str) -> Wait[bool]:
        """Read `literal` if it comes next."""
        while True:
            ahead = self._text[self._at : self._at + len(literal)]
            if ahead == literal:
                self.take(len(literal))
                return True
            if not literal.startswith(ahead) or not (yield from self.more()):
                return False

    def expect(self, literal: str) -> Wait[None]:
        """Read `literal`; Malformed where something else comes."""
        if not (yield from self.accept(literal)):
            raise Malformed

    def skip_space(self) -> Wait[None]:
        """Read white space."""
        while (yield from self.peek()) in (" ", "\t", "\r", "\n"):
            self.take(1)

    def run(self, pattern: re.Pattern[str], longest: int = 1000) -> Wait[str]:
        """Read all that `pattern` matches here, which must match every beginning of what it matches.

        Malformed where that is more than `longest` characters.
        """
        while True:
            found = pattern.match(self._text, self._at)
            size = found.end() - self._at if found else 0
            if size > longest:
                raise Malformed
            if size < len(self._text) - self._at or not (yield from self.more()):
                return self.take(size)

    def until(self, *markers: str) -> Pieces[str | None]:
        """The text before the first of `markers`, which is read too and returned; None where the text ends first.

        No marker may be the beginning of another.
        """
        while True:
            end = first_unfinished(self._text, markers, self._at)
            hit = first_hit(self._text, markers, self._at)
            marker = None
            if hit is not None and hit[0] <= end:
                end, marker = hit
            elif self._closed:
                end, marker = hit or (len(self._text), None)
            if end > self._at:
                yield self.take(end - self._at)
            if marker is not None:
                self.take(len(marker))
                return marker
            if not (yield from self.more()):
                return None


def joined(pieces: Pieces[T]) -> Wait[tuple[str, T]]:
    """All pieces as one text, and what the generator returns."""
    parts: list[str] = []
    while True:
        try:
            piece = next(pieces)
        except StopIteration as stop:
            return "".join(parts), stop.value
        if piece is None:
            yield None
        else:
            parts.append(piece)
