"""Markdown that is rendered while it arrives: finished blocks are printed for good, only the last one is redrawn."""

from __future__ import annotations

import re
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def finished_blocks(text: str) -> int:
    """The length of the part of `text` that later text cannot change: all up to the last blank line outside a fence."""
    end = position = 0
    fence = ""
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        position += len(line)
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence):
                fence, end = "", position
        elif mark:
            fence = mark[1]
        elif not line.strip():
            end = position
    return end


def keep_line_breaks(text: str) -> str:
    """Markdown joins the lines of a paragraph; models mean their line breaks. Two spaces at a line's end keep it."""
    fence = ""
    lines = []
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) else fence
            lines.append(line)
        else:
            fence = mark[1] if mark else ""
            lines.append(line if mark or not line.strip() else f"{line}  ")
    return "\n".join(lines)


class MarkdownStream:
    """A context manager: `think` and `push` text as it comes; thoughts are dim, and come before the rest."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pending = ""
        self._thinking = False
        self._live = Live(console=console, refresh_per_second=10, transient=True, vertical_overflow="ellipsis")

    def __enter__(self) -> MarkdownStream:
        return self

    def think(self, text: str) -> None:
        """Print reasoning, as it is."""
        if text:
            self._thinking = True
            self._console.print(text, style="dim italic", end="", markup=False, highlight=False, soft_wrap=True)

    def push(self, text: str) -> None:
        """Add text and draw."""
        if not text:
            return
        self._end_thoughts()
        self._live.start()  # does nothing where it has started
        self._pending += text
        end = finished_blocks(self._pending)
        if end:
            block, self._pending = self._pending[:end], self._pending[end:]
            if block.strip():
                self._live.update(_render(""))
                self._console.print(_render(block))
        self._live.update(_render(self._pending))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_thoughts()
        self._live.update(_render(""))
        self._live.stop()
        if self._pending.strip():
            self._console.print(_render(self._pending))

    def _end_thoughts(self) -> None:
        if self._thinking:
            self._thinking = False
            self._console.print("\n")


def _render(text: str) -> Markdown:
    return Markdown(keep_line_breaks(text))
