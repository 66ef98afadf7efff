"""Anthropic's requests as strict models, and what they come to as a conversation.

Source: Anthropic's API reference, and the types of its Python client (`anthropic.types`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from edgert_models.errors import RequestError
from pydantic import Field

from edgert import LLM, SamplingParams, StructuredOutputs
from edgert.chat import ToolChoice
from edgert.server.conversation import Conversation, function_call, function_tool
from edgert.server.errors import Json
from edgert.server.strict import WHOLE, Count, Natural, Probability, Stops, Strict, Temperature


class CacheControl(Strict):
    """Asks that a prefix be kept; the prefix cache keeps all of them as long as there is room."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Cacheable(Strict):
    """What may ask to be kept."""

    cache_control: CacheControl | None = None


class TextBlock(Cacheable):
    """A text."""

    type: Literal["text"]
    text: str
    citations: None = None


class ThinkingBlock(Strict):
    """Reasoning of an earlier answer, sent back. Signatures are empty here, and nothing depends on them."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class ToolUseBlock(Cacheable):
    """A call of an earlier answer, sent back."""

    type: Literal["tool_use"]
    id: str
    name: Annotated[str, Field(min_length=1)]
    input: dict[str, Any]


class ToolResultBlock(Cacheable):
    """What a call came to."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None


Block = Annotated[TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]


class Turn(Strict):
    """One turn: the user's texts and results of calls, or the assistant's reasoning, texts and calls."""

    role: Literal["user", "assistant"]
    content: str | list[Block]


class CustomTool(Cacheable):
    """A function that the answer may call; `input_schema` is the JSON schema of its arguments."""

    type: Literal["custom"] | None = None
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None


class Choice(Strict):
    """Whether tools may be called (`auto`, `none`), or one has to be (`any`, `tool` with its name); several at once?"""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingOn(Strict):
    """Reason first. The budget is a target, as Anthropic's is; the limit is max_tokens."""

    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=1024), WHOLE]


class ThinkingElse(Strict):
    """No reasoning, or as much as the model likes."""

    type: Literal["disabled", "adaptive"]


class Metadata(Strict):
    """Whom the request is for."""

    user_id: str | None = None


class OutputFormat(Strict):
    """JSON of a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Strict):
    """How much effort goes into the answer, and its form."""

    effort: str | None = None
    format: OutputFormat | None = None


class PromptFields(Cacheable):
    """What messages and count_tokens have in common: everything that the prompt is made from."""

    model: str
    messages: Annotated[list[Turn], Field(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: list[CustomTool] | None = None
    tool_choice: Choice | None = None
    thinking: Annotated[ThinkingOn | ThinkingElse, Field(discriminator="type")] | None = None
    output_config: OutputConfig | None = None

    def conversation(self, llm: LLM) -> Conversation:
        """The messages, tools and variables; RequestError for what is out of place or not supported."""
        if self.messages[-1].role == "assistant":
            raise RequestError(
                "messages: the last one is the assistant's; this version cannot continue it", parameter="messages"
            )
        messages = [] if self.system is None else [{"role": "system", "content": _joined(self.system)}]
        for place, message in enumerate(self.messages):
            messages += _assistant(message, place) if message.role == "assistant" else _user(message, place)
        return Conversation(
            messages=messages,
            tools=[function_tool(t.name, t.description, t.input_schema, t.strict) for t in self.tools or []],
            tool_choice=_tool_choice(self.tool_choice),
            parallel=self.tool_choice is None or not self.tool_choice.disable_parallel_tool_use,
            variables=self._variables(llm),
        )

    def _variables(self, llm: LLM) -> Json:
        found: Json = {}
        if self.output_config is not None and self.output_config.effort is not None:
            found["reasoning_effort"] = self.output_config.effort
        if self.thinking is not None and self.thinking.type != "adaptive":
            found |= llm.reasoning_variables(self.thinking.type == "enabled")
        return found


class MessagesRequest(PromptFields):
    """POST /v1/messages."""

    max_tokens: Count
    stop_sequences: Stops | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    top_k: Natural | None = None
    top_p: Probability | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None

    def params(self) -> SamplingParams:
        """How the answer is sampled."""
        if isinstance(self.thinking, ThinkingOn) and self.thinking.budget_tokens >= self.max_tokens:
            raise RequestError("thinking.budget_tokens must be less than max_tokens", parameter="thinking")
        form = None if self.output_config is None else self.output_config.format
        content = None if form is None else StructuredOutputs(json=form.schema_, parameter="output_config.format")
        return SamplingParams(
            max_tokens=self.max_tokens,
            stop=self.stop_sequences or (),
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            structured_outputs=content,
        )


class CountRequest(PromptFields):
    """POST /v1/messages/count_tokens."""


def _tool_choice(choice: Choice | None) -> ToolChoice:
    """In OpenAI's form."""
    if choice is None:
        return "auto"
    if (choice.type == "tool") != (choice.name is not None):
        raise RequestError("tool_choice: a name goes with the type 'tool', and only with it", parameter="tool_choice")
    if choice.name is not None:
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.type == "any" else choice.type


def _assistant(message: Turn, place: int) -> list[Json]:
    """A turn of the assistant's is one message."""
    said: Json = {"role": "assistant", "content": None}
    for block in _blocks(message):
        match block:
            case TextBlock():
                said["content"] = (said["content"] or "") + block.text
            case ThinkingBlock():
                said["reasoning_content"] = said.get("reasoning_content", "") + block.thinking
            case ToolUseBlock():
                call = function_call(block.id, block.name, json.dumps(block.input, ensure_ascii=False))
                said.setdefault("tool_calls", []).append(call)
            case ToolResultBlock():
                raise _misplaced(place, block, "user")
    if said["content"] is None and "tool_calls" not in said:
        said["content"] = ""
    return [said]


def _user(message: Turn, place: int) -> list[Json]:
    """A turn of the user's is a message for every result of a call, and one for each run of texts."""
    found: list[Json] = []
    for block in _blocks(message):
        match block:
            case TextBlock():
                if not found or found[-1]["role"] != "user":
                    found.append({"role": "user", "content": ""})
                found[-1]["content"] += block.text
            case ToolResultBlock():
                # Templates know no failed results; the model has to be told in words.
                content = ("Error: " if block.is_error else "") + _joined(block.content or "")
                found.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": content})
            case ThinkingBlock() | ToolUseBlock():
                raise _misplaced(place, block, "assistant")
    return found


def _blocks(message: Turn) -> Sequence[TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock]:
    content = message.content
    return [TextBlock(type="text", text=content)] if isinstance(content, str) else content


def _misplaced(place: int, block: ThinkingBlock | ToolUseBlock | ToolResultBlock, role: str) -> RequestError:
    return RequestError(f"messages.{place}: only the {role} has {block.type} blocks", parameter="messages")


def _joined(content: str | Sequence[TextBlock]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
