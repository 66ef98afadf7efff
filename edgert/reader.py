"""What the text of an answer comes to: content, reasoning, and calls of tools."""

from __future__ import annotations

from dataclasses import dataclass

from edgert.completion import ToolCall, ToolCallDelta
from edgert.text.parsing import CallArguments, CallDropped, CallEnd, CallStart, Content, Event, Parser, Reasoning


@dataclass(frozen=True, slots=True)
class Piece:
    """What a piece of text makes certain."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.tool_calls)


class Reader:
    """Reads one answer, and keeps what it held; without a parser all of it is content.

    `shown` are the control tokens that the parser must see. Without `parallel` the first whole call ends the answer:
    then `done`.
    """

    def __init__(
        self, parser: Parser | None = None, *, shown: frozenset[int] = frozenset(), parallel: bool = True
    ) -> None:
        self.shown = shown
        self.done = False
        self._parser = parser
        self._parallel = parallel
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []
        self._begun: CallStart | None = None
        self._arguments: list[str] = []

    @property
    def text(self) -> str:
        """The content so far."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str | None:
        """The reasoning so far; None where there is none."""
        return "".join(self._reasoning) or None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls that are whole."""
        return list(self._calls)

    def push(self, text: str, *, last: bool) -> Piece:
        """Read more of the answer, the `last` of it where nothing follows."""
        if self._parser is None:
            self._text.append(text)
            return Piece(text)
        events = self._parser.feed(text)
        if last:
            events += self._parser.finish()
        texts: list[str] = []
        thoughts: list[str] = []
        deltas: list[ToolCallDelta] = []
        for event in events:
            if self.done:
                break
            if isinstance(event, Content):
                texts.append(event.text)
            elif isinstance(event, Reasoning):
                thoughts.append(event.text)
            elif delta := self._call(event):
                deltas.append(delta)
        self._text += texts
        self._reasoning += thoughts
        return Piece("".join(texts), "".join(thoughts), tuple(deltas))

    def _call(self, event: Event) -> ToolCallDelta | None:
        """Keep an event of a call; what a stream tells of it."""
        if isinstance(event, CallStart):
            self._begun, self._arguments = event, []
            return ToolCallDelta(index=event.index, id=event.id, name=event.name)
        if isinstance(event, CallArguments):
            self._arguments.append(event.text)
            return ToolCallDelta(index=event.index, arguments=event.text)
        if isinstance(event, CallDropped):
            return ToolCallDelta(index=event.index, dropped=True)
        assert isinstance(event, CallEnd)
        assert self._begun is not None
        self._calls.append(ToolCall(id=self._begun.id, name=self._begun.name, arguments="".join(self._arguments)))
        self.done = not self._parallel
        return None
