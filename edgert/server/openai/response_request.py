"""The request of POST /v1/responses, and what it comes to as a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from edgert_models.errors import RequestError
from pydantic import Field

from edgert import LLM, SamplingParams
from edgert.chat import ToolChoice
from edgert.server.conversation import Conversation, function_call, function_tool
from edgert.server.errors import Json
from edgert.server.strict import Count, Probability, Strict, Temperature
from edgert.server.structured import FlatFormat, content_of

Status = Literal["in_progress", "completed", "incomplete"]


class ItemText(Strict):
    """A text of a message, of either side. An answer's text can be sent back as it is."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: Annotated[list[Any], Field(max_length=0)] | None = None


class MessageItem(Strict):
    """Something that was said."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ItemText]
    id: str | None = None
    status: Status | None = None


class ReasoningText(Strict):
    """A text that the model wrote for itself."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Strict):
    """Reasoning of an earlier answer, sent back."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: Annotated[list[Any], Field(max_length=0)] | None = None
    content: list[ReasoningText] | None = None
    encrypted_content: None = None
    status: Status | None = None


class FunctionCallItem(Strict):
    """A call of an earlier answer, sent back."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None


class FunctionOutputItem(Strict):
    """What a call came to."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[ItemText]
    id: str | None = None
    status: Status | None = None


class FunctionTool(Strict):
    """A function that the answer may call."""

    type: Literal["function"]
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ReasoningChoice(Strict):
    """How much to reason."""

    effort: str | None = None


class TextChoice(Strict):
    """The form of the text."""

    format: FlatFormat | None = None


class StreamChoice(Strict):
    """Nothing is added to hide the length of pieces."""

    include_obfuscation: Literal[False] | None = None


class ResponseRequest(Strict):
    """POST /v1/responses."""

    model: str
    input: (
        str | Annotated[list[MessageItem | ReasoningItem | FunctionCallItem | FunctionOutputItem], Field(min_length=1)]
    )
    instructions: str | None = None
    max_output_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    stream: bool | None = None
    stream_options: StreamChoice | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningChoice | None = None
    text: TextChoice | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    include: Annotated[list[str], Field(max_length=0)] | None = None
    background: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None

    def params(self) -> SamplingParams:
        """How the answer is sampled."""
        overflow = {None: None, "disabled": "error", "auto": "truncate-middle"}[self.truncation]
        return SamplingParams(
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            structured_outputs=None if self.text is None else content_of(self.text.format, "text.format"),
            overflow=overflow,
        )

    def conversation(self, llm: LLM) -> Conversation:
        """The messages and tools; RequestError for what would have to be kept, or held to."""
        if self.store:
            raise RequestError(
                "store: this server keeps no responses; leave it out or set it to false", parameter="store"
            )
        if self.previous_response_id is not None:
            reason = "previous_response_id: this server keeps no responses; send the whole conversation as input"
            raise RequestError(reason, parameter="previous_response_id")
        effort = None if self.reasoning is None else self.reasoning.effort
        return Conversation(
            messages=self._messages(),
            tools=[
                function_tool(tool.name, tool.description, tool.parameters, tool.strict) for tool in self.tools or []
            ],
            tool_choice=_tool_choice(self.tool_choice),
            parallel=self.parallel_tool_calls is not False,
            variables={} if effort is None else {"reasoning_effort": effort},
        )

    def _messages(self) -> list[Json]:
        messages: list[Json] = []
        if self.instructions is not None:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*messages, {"role": "user", "content": self.input}]
        for item in self.input:
            match item:
                case MessageItem(role="assistant"):
                    said = _said(messages)
                    said["content"] = (said["content"] or "") + _joined(item.content)
                case MessageItem():
                    messages.append({"role": item.role, "content": _joined(item.content)})
                case ReasoningItem():
                    thought = "".join(part.text for part in item.content or [])
                    _said(messages, fresh=True)["reasoning_content"] = thought
                case FunctionCallItem():
                    calls = _said(messages).setdefault("tool_calls", [])
                    calls.append(function_call(item.call_id, item.name, item.arguments))
                case FunctionOutputItem():
                    content = _joined(item.output)
                    messages.append({"role": "tool", "tool_call_id": item.call_id, "content": content})
        return messages


def _tool_choice(choice: str | dict[str, Any] | None) -> ToolChoice:
    """As chat completions have it: a function's name stands inside an object of its own there."""
    match choice:
        case None:
            return "auto"
        case {"type": "function", "name": str(name), **rest} if not rest:
            return {"type": "function", "function": {"name": name}}
    return choice


def _said(messages: list[Json], *, fresh: bool = False) -> Json:
    """The message of the assistant that the next item is part of: reasoning begins a `fresh` one."""
    if fresh or not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    return messages[-1]


def _joined(content: str | Sequence[ItemText]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
