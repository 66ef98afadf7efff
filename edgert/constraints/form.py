"""What an answer looks like as a whole, and the grammar that says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from edgert.constraints.arguments import ArgumentRules
from edgert.constraints.lark import ANY_TEXT, Text, expression, json_value, quoted, spelled
from edgert.engine.structured import StructuredOutputs
from edgert.text.parsing import CallShape


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
            rules += [f"REST: {ANY_TEXT}"] if free else []
            each, needed = _arguments(self.calls, text)
            rules += needed + _calls(self.calls, text, each)
            rules += _amid_text(self.calls, text, each) if amid_text else []
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
        return expression(content.regex)
    if content.choice is not None:
        return " | ".join(map(quoted, content.choice))
    return json_value(json.loads(content.text))


def _thinking(thinking: Thinking, text: Text) -> list[str]:
    closing = text(thinking.closing)
    rules = [f"thinking: {text(thinking.opening)} thought GAP?", r"GAP: /[ \n]{1,3}/"]
    if closing.startswith('"'):  # ordinary text: the first time it comes
        return [*rules, f"thought[suffix={closing}]: {ANY_TEXT}"]
    return [*rules, f"thought: {ANY_TEXT} {closing}"]


def _calls(calls: CallsForm, text: Text, each: Mapping[str, str]) -> list[str]:
    """`calls`: one call or several, as the model writes them. `each` has the arguments by the function's name."""
    shape = calls.shape
    return [
        f"calls: {spelled(shape.opening, text)} call {_more(calls, text)} {spelled(shape.closing, text)}",
        f"call: {_alternatives(calls, text, each)}",
    ]


def _amid_text(calls: CallsForm, text: Text, each: Mapping[str, str]) -> list[str]:
    """`amid_text`: any text, in which what begins calls does begin them, wherever it comes."""
    shape = calls.shape
    trigger = text(shape.trigger)
    rules = [
        f"amid_text: {'(said section)* REST' if calls.several else 'REST | said section'}",
        f"section: first {_more(calls, text)} {spelled(shape.closing, text)}",
        f"first: {_alternatives(calls, text, each, shape.opening, len(shape.trigger))}",
    ]
    if trigger.startswith('"'):
        return [*rules, "said[lazy]: SAID", f"SAID: {ANY_TEXT} {trigger}"]
    return [*rules, f"said: {ANY_TEXT} {trigger}"]


def _more(calls: CallsForm, text: Text) -> str:
    between = calls.shape.between
    return f"({spelled(between, text)} call)*" if calls.several and between is not None else ""


def _alternatives(calls: CallsForm, text: Text, each: Mapping[str, str], opening: str = "", skipped: int = 0) -> str:
    """A call of any of the functions; of what stands before the arguments the first characters are `skipped`."""
    shape = calls.shape
    before = (opening + shape.before)[skipped:]
    alternatives = (
        f"{spelled(before, text, name)} {arguments} {spelled(shape.after, text)}" for name, arguments in each.items()
    )
    return " | ".join(alternatives)


def _arguments(calls: CallsForm, text: Text) -> tuple[dict[str, str], list[str]]:
    """The arguments by the function's name, and the rules that they need."""
    each, rules = {}, []
    for place, (name, schema) in enumerate(calls.arguments.items()):
        written = calls.shape.parameters
        if written is None:
            each[name] = json_value(json.loads(schema))
            continue
        found = ArgumentRules(written, name, json.loads(schema), text, f"f{place}")
        each[name] = found.start
        rules += found.rules
    return each, rules
