"""A conversation in any protocol becomes messages in OpenAI's form, and goes one way from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgert_models.errors import UnsupportedError
from starlette.concurrency import run_in_threadpool

from edgert import LLM
from edgert.chat import ChatPrompt, ToolChoice
from edgert.server.errors import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Messages and tools in OpenAI's form, and what else the prompt depends on."""

    messages: Sequence[Json]
    tools: Sequence[Json] = ()
    tool_choice: ToolChoice = "auto"
    parallel: bool = True
    variables: Mapping[str, Any] = field(default_factory=dict)


async def prompt_of(llm: LLM, conversation: Conversation) -> ChatPrompt:
    """The prompt. The template runs in a process of its own; waiting for it does not hold up the others."""
    if not llm.has_chat_template:
        raise UnsupportedError(f"the model {llm.name!r} has no chat template; use /v1/completions")
    return await run_in_threadpool(
        llm.chat_prompt,
        conversation.messages,
        tools=conversation.tools,
        tool_choice=conversation.tool_choice,
        parallel_tool_calls=conversation.parallel,
        chat_template_kwargs=conversation.variables,
    )


def function_tool(
    name: str, description: str | None, parameters: Mapping[str, Any] | None, strict: bool | None = None
) -> Json:
    """A tool in OpenAI's form."""
    given = {"name": name, "description": description, "parameters": parameters, "strict": strict}
    return {"type": "function", "function": {key: value for key, value in given.items() if value is not None}}


def function_call(call_id: str, name: str, arguments: str) -> Json:
    """A call in OpenAI's form."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
