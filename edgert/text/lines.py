"""What ends an answer by its lines, as editors want it that fill in code."""

from __future__ import annotations


class Lines:
    """Text that comes in pieces, up to a line after the first that begins with fewer than `indent` spaces or tabs, or
    to the first that ends after `seconds` (None: however late). `ended` once that has come.

    What begins a line is held back until it is certain that the line belongs to the text.
    """

    def __init__(self, indent: int, seconds: float | None) -> None:
        self._indent = indent
        self._seconds = seconds
        self._held = ""
        self.ended = False

    def push(self, text: str, seconds: float) -> str:
        """What may be shown of the text so far, which has taken so long."""
        if self.ended:
            return ""
        shown, rest = "", self._held + text
        while (end := rest.find("\n")) >= 0:
            line = rest[end + 1 :]
            width = len(line) - len(line.lstrip(" \t"))
            if width < self._indent:
                self.ended = width < len(line)
                break
            shown, rest = shown + rest[: end + 1 + width], line[width:]
        end = len(rest) if end < 0 else end
        shown, self._held = shown + rest[:end], rest[end:]
        self.ended = self.ended or (self._seconds is not None and "\n" in text and seconds > self._seconds)
        return shown

    def flush(self) -> str:
        """What is still held back, now that no more comes."""
        held, self._held = "" if self.ended else self._held, ""
        return held
