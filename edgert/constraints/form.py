"""What an answer looks like as a whole, and the grammar that says so.

Grammars are llguidance's form of Lark (`docs/syntax.md` of guidance-ai/llguidance).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgert.engine.structured import StructuredOutputs
from edgert.text.parsing import CallShape

_ANY_TEXT = "/(?s:.*)/"
_SPACE = r"( |\n{1,2}[ \t]{0,20})"  # between the parts of JSON; a small model may else write nothing but space

_SLASHED = re.compile(r"\\.|/|\n", re.DOTALL)

Text = Callable[[str], str]
"""A text of the model's own form as Lark: which of its parts are control tokens depends on the vocabulary."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """Reasoning before the answer, between two tags. `begun`: the prompt has opened it already."""

    opening: str
    closing: str
    begun: bool


@dataclass(frozen=True, slots=True)
class CallsForm:
    """Calls of tools: schemas of the arguments by the function's name (of at least one), as JSON text.

    `required`: the answer is calls and nothing else. `several`: more than one may come.
    """

    shape: CallShape
    arguments: Mapping[str, str]
    required: bool
    several: bool


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """First reasoning, if the model writes any, then the content, or calls.

    Without `content` any text may stand around calls that are not required. `opening` is what the model's form has
    before its content.
    """

    content: StructuredOutputs | None = None
    thinking: Thinking | None = None
    calls: CallsForm | None = None
    opening: str = ""

    @property
    def user_grammar(self) -> str | None:
        """The grammar that the caller wrote, if there is one; it has to be Lark before `lark` is asked for."""
        return None if self.content is None else self.content.grammar

    @property
    def parameter(self) -> str:
        """What errors call it."""
        return "tools" if self.content is None else self.content.parameter

    def lark(self, text: Text) -> str:
        """The grammar, in which `@user` is the caller's own."""
        # Without "no_forcing" llguidance would choose how texts without alternatives are cut into tokens.
        rules = ['%llguidance {"no_forcing": true}']
        bodies = []
        if self.content is not None:
            bodies.append(f"{text(self.opening)} content")
            rules.append(f"content: {_content(self.content)}")
        if self.calls is not None:
            free = self.content is None and not self.calls.required
            amid_text = free and not self.opening
            rules += [f"REST: {_ANY_TEXT}"] if free else []
            rules += _calls(self.calls, text) + (_amid_text(self.calls, text) if amid_text else [])
            bodies += [f"{text(self.opening)} REST"] if free and not amid_text else []
            bodies.append("amid_text" if amid_text else "calls")
        body = "(" + " | ".join(bodies) + ")"
        if self.thinking is None:
            return "\n".join([*rules, f"start: {body}"])
        rules += _thinking(self.thinking, text)
        return "\n".join([*rules, f"start: {'thought GAP?' if self.thinking.begun else 'thinking?'} {body}"])


def _content(content: StructuredOutputs) -> str:
    if content.grammar is not None:
        return "@user"
    if content.regex is not None:
        return f"/{_SLASHED.sub(_slashed, content.regex)}/"
    if content.choice is not None:
        return " | ".join(map(quoted, content.choice))
    return _json(content.text)


def _slashed(found: re.Match[str]) -> str:
    """A part of an expression as it is written between slashes, on one line."""
    return {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}.get(found[0], found[0])


def _json(schema: str) -> str:
    """Any value of a schema. Its own `x-guidance`, with which a schema could ask to be ignored, is replaced."""
    found: dict[str, Any] = {**json.loads(schema), "x-guidance": {"whitespace_pattern": _SPACE}}
    return f"%json {json.dumps(found)}"


def quoted(text: str) -> str:
    """A text as Lark has it."""
    return json.dumps(text, ensure_ascii=False)


def _thinking(thinking: Thinking, text: Text) -> list[str]:
    closing = text(thinking.closing)
    rules = [f"thinking: {text(thinking.opening)} thought GAP?", r"GAP: /[ \n]{1,3}/"]
    if closing.startswith('"'):  # ordinary text: the first time it comes
        return [*rules, f"thought[suffix={closing}]: {_ANY_TEXT}"]
    return [*rules, f"thought: {_ANY_TEXT} {closing}"]


def _calls(calls: CallsForm, text: Text) -> list[str]:
    """`calls`: one call or several, as the model writes them."""
    shape = calls.shape
    return [
        f"calls: {text(shape.opening)} call {_more(calls, text)} {text(shape.closing)}",
        f"call: {_alternatives(calls, text)}",
    ]


def _amid_text(calls: CallsForm, text: Text) -> list[str]:
    """`amid_text`: any text, in which what begins calls does begin them, wherever it comes."""
    shape = calls.shape
    trigger = text(shape.trigger)
    rules = [
        f"amid_text: {'(said section)* REST' if calls.several else 'REST | said section'}",
        f"section: first {_more(calls, text)} {text(shape.closing)}",
        f"first: {_alternatives(calls, text, shape.opening, len(shape.trigger))}",
    ]
    if trigger.startswith('"'):
        return [*rules, "said[lazy]: SAID", f"SAID: {_ANY_TEXT} {trigger}"]
    return [*rules, f"said: {_ANY_TEXT} {trigger}"]


def _more(calls: CallsForm, text: Text) -> str:
    between = calls.shape.between
    return f"({text(between)} call)*" if calls.several and between is not None else ""


def _alternatives(calls: CallsForm, text: Text, opening: str = "", skipped: int = 0) -> str:
    """A call of any of the functions; of what stands before the arguments the first characters are `skipped`."""
    shape = calls.shape
    each = [
        f"{_before(shape, opening, skipped, name, text)} {_json(arguments)} {text(shape.after)}"
        for name, arguments in calls.arguments.items()
    ]
    return " | ".join(each)


def _before(shape: CallShape, opening: str, skipped: int, name: str, text: Text) -> str:
    parts = (opening + shape.before)[skipped:].split("NUMBER")
    return " /[0-9]{1,4}/ ".join(text(part.replace("NAME", name)) for part in parts)
