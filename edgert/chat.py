"""How a model holds a conversation: its template makes the prompt, and its dialect says how the answer is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from edgert_models.errors import RequestError, UnsupportedError
from edgert_quant.files import read_text
from edgert_quant.gguf import GgufMetadata
from edgert_quant.vocabulary import TokenType

from edgert.constraints.form import AnswerForm, CallsForm, Thinking
from edgert.engine.structured import StructuredOutputs
from edgert.reader import Reader
from edgert.text import ChatTemplate, Tokenizer
from edgert.text.literal import hide_special
from edgert.text.messages import REASONING_NAMES, checked_messages, checked_tools
from edgert.text.parsing import Dialect, dialect
from edgert.text.template import TEMPLATE_KEY

Message = Mapping[str, Any]
ToolChoice = str | Mapping[str, Any]
"""As OpenAI has it: "auto", "none", "required", or {"type": "function", "function": {"name": …}}."""
_CALLABLE = re.compile(r"[^\s\"\\\\<>\[\]{}|#]+")


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages as a prompt: its text and token ids, and what the answer to it may hold.

    `tools` are those that the answer may call; with `parallel` off it ends with its first call. `forced` are the names
    of those of which it has to call one.
    """

    text: str
    token_ids: list[int]
    tools: list[dict[str, Any]]
    parallel: bool
    dialect: Dialect
    shown: frozenset[int]
    forced: tuple[str, ...] = ()

    def reader(self) -> Reader:
        """What reads an answer to this prompt."""
        return Reader(self.dialect.parser(self.text, self.tools), shown=self.shown, parallel=self.parallel)

    def form(self, content: StructuredOutputs | None) -> AnswerForm | None:
        """What the answer has to look like, with `content` as its text; None where anything will do.

        RequestError where the model's form of calls cannot be held to schemas.
        """
        calls = self._calls(bool(content))
        if content is None and calls is None:
            return None
        return AnswerForm(
            content=None if self.forced else content,
            thinking=self._thinking(),
            calls=calls,
            opening="" if self.text.endswith(self.dialect.opening) else self.dialect.opening,
        )

    def _thinking(self) -> Thinking | None:
        tags = self.dialect.thoughts
        if tags is None or self.text.rstrip().endswith(tags[1]):  # the prompt has ended it already
            return None
        return Thinking(*tags, begun=self.dialect.has_begun(self.text))

    def _calls(self, has_content: bool) -> CallsForm | None:
        functions = [tool["function"] for tool in self.tools]
        strict = any(function.get("strict") for function in functions)
        if not functions or not (self.forced or strict or has_content):
            return None
        shape, calls = self.dialect.shape, self.dialect.calls
        why = "tool_choice" if self.forced else "tools" if strict else "response_format"
        if shape is None or not (self.forced or has_content or shape.trigger or self.dialect.opening):
            form = "an unknown form" if calls is None else f"the form {calls.name!r}"
            reason = f"this model writes calls in {form}, which cannot be held to a schema"
            hint = "leave the tools out" if why == "response_format" else "use tool_choice 'auto' without strict"
            raise RequestError(f"{why}: {reason}; {hint}", parameter=why)
        # Who leaves the choice to the model asks for schemas only with `strict`.
        arguments = {
            function["name"]: _arguments(function, checked=bool(self.forced) or bool(function.get("strict")))
            for function in functions
            if not self.forced or function["name"] in self.forced
        }
        return CallsForm(shape, arguments, required=bool(self.forced), several=self.parallel)


class Chat:
    """The conversation's side of a model: template, tokenizer and dialect. Safe to use from several threads."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self.template = template
        self._tokenizer = tokenizer

    @classmethod
    def from_gguf(cls, metadata: GgufMetadata, tokenizer: Tokenizer | None, path: str | Path | None) -> Self | None:
        """With the template in the file at `path`, or else the model's own; None where there is neither."""
        if path is not None:
            if tokenizer is None:
                raise UnsupportedError("a model without a tokenizer cannot use a chat template")
            source = read_text(path, "chat_template", "chat template")
            return cls(ChatTemplate(source, bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token), tokenizer)
        if tokenizer is None or not metadata.string(TEMPLATE_KEY, ""):
            return None
        return cls(ChatTemplate.from_gguf(metadata, tokenizer), tokenizer)

    @cached_property
    def dialect(self) -> Dialect:
        """How the model writes reasoning and tool calls, by its templates and special tokens."""
        vocabulary = self._tokenizer.vocabulary
        special = vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED)
        return dialect(self.template.sources, (vocabulary.tokens[index] for index in special))

    @cached_property
    def _shown(self) -> tuple[frozenset[int], frozenset[int]]:
        """The control tokens that a parser must see, without tools and with."""
        markers = (self.dialect.markers(tools=tools) for tools in (False, True))
        without, using = (self._tokenizer.control_ids(texts) for texts in markers)
        return without, using

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        variables: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt's text; see `_for_template` for what is done to messages before."""
        return self.template.render(
            self._for_template(messages),
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            **self._checked(variables or {}),
        )

    def prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        variables: Mapping[str, Any] | None = None,
        *,
        parallel: bool = True,
        tool_choice: ToolChoice = "auto",
    ) -> ChatPrompt:
        """Messages as a prompt. Nothing is added: the template says where the begin token goes.

        Special tokens that messages spell out are text; only the template writes tokens.
        """
        offered = [] if tool_choice == "none" else checked_tools(tools) or []
        forced = _forced(tool_choice, [tool["function"]["name"] for tool in offered])
        if offered and self.dialect.calls is None:
            raise UnsupportedError("tools: the chat template of this model has no use for tools")
        hidden, literal = hide_special(self._for_template(messages), self._tokenizer.special)
        text = self.template.render(hidden, tools=_as_told(offered) or None, **self._checked(variables or {}))
        ids = (
            self._tokenizer.encode_around(text, literal) if literal else self._tokenizer.encode(text, add_special=False)
        )
        for character, meant in literal.items():
            text = text.replace(character, meant)
        return ChatPrompt(
            text=text,
            token_ids=ids,
            tools=offered,
            parallel=parallel and not isinstance(tool_choice, Mapping),  # which names one function, to be called once
            dialect=self.dialect,
            shown=self._shown[bool(offered)],
            forced=forced,
        )

    @property
    def reasons(self) -> bool:
        """Whether the model writes reasoning that can be told from its answer."""
        return self.dialect.thoughts is not None

    def reasoning_variables(self, on: bool) -> dict[str, bool]:
        """The template's variables that turn reasoning on or off; RequestError where they would change nothing that
        has to change.
        """
        if self._knows("enable_thinking"):
            return {"enable_thinking": on}
        if self._knows("thinking is defined"):  # DeepSeek V3.1 and later
            return {"thinking": on}
        if on == self.reasons:
            return {}
        reason = "this model does not reason" if on else "this model's chat template cannot turn reasoning off"
        raise RequestError(f"thinking: {reason}", parameter="thinking")

    def _for_template(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Checked messages in a form that this template understands.

        No content beside tool calls is "" (null in OpenAI's API, which most templates fail on or print as "None").
        Developers speak as the system where the template knows none. Reasoning beside content and calls is left out
        where the template refuses it (gpt-oss's).
        """
        checked = checked_messages(messages)
        for message in checked:
            if message.get("content") is None:
                message["content"] = ""
            if message["role"] == "developer" and not self._knows("developer"):
                message["role"] = "system"
            if (
                message["content"]
                and message.get("tool_calls")
                and self._knows("Cannot pass both content and thinking")
            ):
                for name in REASONING_NAMES:
                    message.pop(name, None)
        return checked

    def _checked(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Variables for the template; those that messages and tools give are not for a caller to set.

        `reasoning_effort` has to have an effect; "none" is `enable_thinking` off where the template knows that instead.
        """
        if not isinstance(variables, Mapping) or not all(isinstance(name, str) for name in variables):
            raise RequestError("chat_template_kwargs must be values by name", parameter="chat_template_kwargs")
        for name in ("messages", "tools", "add_generation_prompt"):
            if name in variables:
                reason = f"chat_template_kwargs cannot set {name!r}"
                raise RequestError(reason, parameter="chat_template_kwargs")
        effort = variables.get("reasoning_effort")
        if effort is None or self._knows("reasoning_effort"):
            return dict(variables)
        if effort == "none" and self._knows("enable_thinking"):
            return {"enable_thinking": False, **variables}
        reason = f"reasoning_effort: this model's chat template has no use for {effort!r:.40}"
        raise RequestError(reason, parameter="reasoning_effort")

    def _knows(self, variable: str) -> bool:
        return any(variable in source for source in self.template.sources)


def _as_told(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tools as the template is given them: that calls are held to a schema is nothing for the model to know."""
    return [
        {**tool, "function": {key: value for key, value in tool["function"].items() if key != "strict"}}
        for tool in tools
    ]


def _forced(tool_choice: ToolChoice, names: Sequence[str]) -> tuple[str, ...]:
    """The functions of which one has to be called; none where the choice is free."""
    match tool_choice:
        case "auto" | "none":
            return ()
        case "required" if names:
            return tuple(names)
        case {"type": "function", "function": {"name": str(name), **more}, **rest} if not more and not rest:
            if name in names:
                return (name,)
            reason = f"there is no tool {name!r:.80}; there are: {', '.join(names) or 'none'}"
        case "required":
            reason = "there are no tools to call"
        case _:
            reason = (
                f"{tool_choice!r:.80} is not known; use 'auto', 'none', 'required' or "
                "{'type': 'function', 'function': {'name': …}}"
            )
    raise RequestError(f"tool_choice: {reason}", parameter="tool_choice")


def _arguments(function: Mapping[str, Any], *, checked: bool) -> str:
    """The schema of a function's arguments as JSON text: any object where it does not say, or is not `checked`."""
    name = function["name"]
    if not _CALLABLE.fullmatch(name):
        raise RequestError(f"tools: a call cannot be held to the name {name!r:.80}", parameter="tools")
    schema = function.get("parameters") if checked else None
    schema = {"type": "object", **(schema or {})}
    if schema["type"] != "object":
        reason = f"the parameters of {name!r} are of type {schema['type']!r:.40}; arguments are objects"
        raise RequestError(f"tools: {reason}", parameter="tools")
    return StructuredOutputs(json=schema, parameter="tools").text
