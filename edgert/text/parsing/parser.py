"""One answer's parser: text in, events out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgert.text.parsing.base import CallArguments, Content, Event, Reasoning, Steps
from edgert.text.parsing.scanner import Scanner


class Parser:
    """Feed it the text of an answer as it comes, then `finish`; each gives the events that have become certain.

    However the text is cut into pieces, contents, reasoning and arguments together are the same. No text is an error.
    """

    def __init__(self, read: Callable[[Scanner], Steps[None]]) -> None:
        self._scanner = Scanner()
        self._steps = read(self._scanner)

    def feed(self, text: str) -> list[Event]:
        """More of the answer."""
        self._scanner.add(text)
        return self._events()

    def finish(self) -> list[Event]:
        """The answer has ended."""
        self._scanner.close()
        return self._events()

    def _events(self) -> list[Event]:
        """What comes up to where more text is wanted; neighbours that can be one are."""
        found: list[Event] = []
        for event in self._steps:
            if event is None:
                break
            if isinstance(event, Content | Reasoning | CallArguments):
                if not event.text:
                    continue
                last = found[-1] if found else None
                if type(last) is type(event):
                    assert isinstance(last, Content | Reasoning | CallArguments)
                    if not isinstance(last, CallArguments) or last.index == getattr(event, "index", None):
                        found[-1] = replace(last, text=last.text + event.text)
                        continue
            found.append(event)
        return found
