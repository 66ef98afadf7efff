"""What the text of an answer holds: content, reasoning and tool calls, told piece by piece.

A format (one file each) is a generator that reads a `Scanner` from the beginning of the answer to its end. It yields
events, and None where it can only go on when more text has come; so it is written as if the whole text were there.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from edgert.text.parsing.scanner import Malformed, Pieces, Scanner
from edgert.text.parsing.schemas import resolved

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Content:
    """Text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text that the model wrote for itself before it answered."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call of the function `name` begins. `index` counts the calls of an answer from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of the JSON text of a call's arguments, an object."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The call is whole: its arguments together are a JSON object."""

    index: int


@dataclass(frozen=True, slots=True)
class CallDropped:
    """What had begun as a call is none; all of its text follows as `Content`."""

    index: int


Event: TypeAlias = Content | Reasoning | CallStart | CallArguments | CallEnd | CallDropped
Steps: TypeAlias = Generator[Event | None, None, T]
"""Yields events, and None to wait for more text."""


class Functions:
    """The functions that an answer may call, from tools in OpenAI's form."""

    def __init__(self, tools: Iterable[Mapping[str, Any]] = ()) -> None:
        functions = [tool["function"] for tool in tools]
        self._parameters = {function["name"]: function.get("parameters") for function in functions}

    def __bool__(self) -> bool:
        return bool(self._parameters)

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def parameters(self, function: str) -> Mapping[str, Any]:
        """The JSON schema of all parameters; empty where the tool does not say."""
        parameters = self._parameters.get(function)
        return parameters if isinstance(parameters, Mapping) else {}

    def schema(self, function: str, parameter: str) -> Mapping[str, Any]:
        """The JSON schema of a parameter; empty where the tool does not say."""
        parameters = self.parameters(function)
        properties = parameters.get("properties")
        schema = properties.get(parameter) if isinstance(properties, Mapping) else None
        return resolved(schema, parameters) if isinstance(schema, Mapping) else {}


def new_id() -> str:
    """An id for a call, in OpenAI's form."""
    return f"call_{secrets.token_hex(12)}"


class Calls:
    """The calls of one answer: what may be called, and how many have been."""

    def __init__(self, functions: Functions, new_id: Callable[[], str] = new_id) -> None:
        self.functions = functions
        self._new_id = new_id
        self._count = 0

    def start(self, name: str, call_id: str | None = None) -> CallStart:
        """The event that begins a call, which must be told at once; Malformed where the name is none."""
        if not name or name != name.strip():
            raise Malformed
        event = CallStart(self._count, call_id or self._new_id(), name)
        self._count += 1
        return event


@dataclass(frozen=True, slots=True)
class Parameters:
    """How arguments are written one by one: parameters with `between` between them.

    A parameter is `before`, in which KEY stands for its name, the value, and `after`. Values are JSON, with these
    exceptions: of "plain" ones texts have neither marks nor escapes and end where `after` has its tag (where
    `plain_before` is given, it stands before such texts instead); "python" writes the constants of Python's; "marked"
    has `mark` on both sides of every text and no marks around keys.
    """

    before: str
    after: str = ""
    between: str = ""
    plain_before: str = ""
    values: Literal["plain", "python", "marked"] = "plain"
    mark: str = ""


@dataclass(frozen=True, slots=True)
class CallShape:
    """How calls are written, for answers that are held to them.

    `opening`, then calls with `between` between them (None: only one can be written), then `closing`. A call is
    `before`, in which NAME stands for the function's name, the arguments, which are JSON or written as `parameters`
    says, and `after`. NUMBER stands for any number, GAP for a new line that may be left out. `needs`: a special token
    that the vocabulary must have.
    """

    before: str
    after: str = ""
    between: str | None = None
    opening: str = ""
    closing: str = ""
    needs: str = ""
    parameters: Parameters | None = None

    @property
    def texts(self) -> list[str]:
        """All that is written in this shape, but names and values."""
        found = [self.opening, self.before, self.after, self.between or "", self.closing]
        if self.parameters is not None:
            written = self.parameters
            found += [written.before, written.plain_before, written.after, written.between, written.mark]
        return list(filter(None, found))

    @property
    def trigger(self) -> str:
        """What tells calls from text: the tag or token they begin with; empty where they begin without one."""
        begin = self.opening + self.before
        tag = _TAG.match(begin)
        return "" if tag is None else tag[0]


_TAG = re.compile(r"<(?:[^<>]*?(?=NAME)|[^<>]+>)|\[[A-Z_]+\]")


@dataclass(frozen=True, slots=True)
class Format:
    """How a family of models writes tool calls.

    `answer(text, calls, fresh)` reads everything after the reasoning; `fresh` tells that reasoning comes directly
    before. A chat template is of this format where it has all strings of one of the groups in `hints`. `markers` are
    the texts that mark calls: where they are control tokens of a vocabulary, they must not be left out of the text.
    `always`: answers are in this form without tools too, also their reasoning where `thoughts` are the tags around it,
    and `content` is what comes before the text for the user. `reasoning`: the tags around reasoning, where templates do
    not spell them out. `shapes`: ways of writing calls that answers can be held
    to, of which the first that the vocabulary can write counts.
    """

    name: str
    hints: tuple[tuple[str, ...], ...]
    markers: tuple[str, ...]
    answer: Callable[[Scanner, Calls, bool], Steps[None]]
    new_id: Callable[[], str] = new_id
    always: bool = False
    thoughts: tuple[str, str] | None = None
    content: str = ""
    reasoning: tuple[str, str] | None = None
    shapes: tuple[CallShape, ...] = ()

    def fits(self, template: str) -> bool:
        """Whether a chat template teaches this format."""
        return any(all(hint in template for hint in group) for group in self.hints)


Section: TypeAlias = Callable[[Scanner, Calls, str], Steps[None]]
"""`section(text, calls, opener)` reads calls after `opener`; it raises Malformed where the text is no call."""


def tagged(openers: tuple[str, ...], section: Section) -> Callable[[Scanner, Calls, bool], Steps[None]]:
    """The `answer` of a format in which each of `openers` begins calls: text outside of them is content."""

    def answer(text: Scanner, calls: Calls, fresh: bool) -> Steps[None]:
        while True:
            space, opener = yield from flow(text.until(*openers), Content, fresh=fresh)
            if opener is None:
                return
            fresh = yield from attempt(text, section(text, calls, opener), space + opener)

    return answer


def messages(text: Scanner, start: str, message: Callable[[], Steps[None]]) -> Steps[None]:
    """One `message` after another; what is none is content, up to `start`, where another may begin."""
    while (yield from text.peek()):
        if not (yield from attempt(text, message())):
            marker = yield from each(text.until(start), Content)
            if marker is None:
                return


def attempt(text: Scanner, section: Steps[None], opener: str = "") -> Steps[bool]:
    """The events of `section`; where it is malformed, its text since the last whole call (or `opener`) as content.

    Returns whether it was well formed.
    """
    text.mark(opener)
    begun = None
    try:
        for event in section:
            if isinstance(event, CallStart):
                begun = event.index
            elif isinstance(event, CallEnd):
                begun = None
                text.mark()
            yield event
    except Malformed:
        if begun is not None:
            yield CallDropped(begun)
        yield Content(text.marked())
        return False
    finally:
        text.unmark()
    return True


_SPACE = " \t\r\n"


def flow(pieces: Pieces[str | None], make: Callable[[str], Event], *, fresh: bool) -> Steps[tuple[str, str | None]]:
    """Pieces as events, without the white space beside reasoning and calls.

    That is: none at the beginning where it is `fresh` from either, none at the end where a marker (which is what
    `pieces` returns) ended it. Returns that last white space, and the marker.
    """
    space: list[str] = []
    while True:
        try:
            piece = next(pieces)
        except StopIteration as stop:
            marker: str | None = stop.value
            last = "" if fresh else "".join(space)
            if marker is None and last:
                yield make(last)
            return last, marker
        if piece is None:
            yield None
            continue
        body = piece.rstrip(_SPACE)
        if body:
            shown = body.lstrip(_SPACE) if fresh else "".join(space) + body
            fresh = False
            space = []
            yield make(shown)
        space.append(piece[len(body) :])


def each(pieces: Pieces[T], make: Callable[[str], Event]) -> Steps[T]:
    """Every piece as an event."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as stop:
            result: T = stop.value
            return result
        yield None if piece is None else make(piece)
