"""Ollama's requests as strict models.

Source: Ollama's `docs/api.md`, and the types of its Python client (`ollama._types`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from edgert_models.errors import RequestError
from pydantic import Field

from edgert import LLM, SamplingParams, StructuredOutputs
from edgert.server.conversation import Conversation, function_call
from edgert.server.errors import Json
from edgert.server.models.durations import LONGEST, PATTERN, seconds
from edgert.server.models.fleet import UNCHANGED, Keep
from edgert.server.openai.requests import Tool
from edgert.server.strict import WHOLE, Count, Natural, Penalty, Probability, Stop, Stops, Strict, Temperature

# Options by the name that SamplingParams has for them.
_NAMES = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_last_n": "repeat_last_n",
    "repetition_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "stop": "stop",
}


class ContextOption(Strict):
    """How long a context is needed: one that the server has not is refused."""

    num_ctx: Count | None = None

    def check(self, llm: LLM) -> None:
        """RequestError where the server's context is shorter."""
        if self.num_ctx is not None and self.num_ctx > llm.context:
            reason = f"options.num_ctx is {self.num_ctx}; the context holds {llm.context}, which --context sets"
            raise RequestError(reason, parameter="options")


class Options(ContextOption):
    """How an answer is sampled; -1 for `seed` and below 0 for `num_predict` mean none."""

    num_predict: Annotated[int, Field(ge=-2), WHOLE] | None = None
    seed: Annotated[int, Field(ge=-1, lt=2**64), WHOLE] | None = None
    temperature: Temperature | None = None
    top_k: Natural | None = None
    top_p: Probability | None = None
    min_p: Probability | None = None
    typical_p: Probability | None = None
    repeat_last_n: Annotated[int, Field(ge=-1), WHOLE] | None = None
    repeat_penalty: Annotated[float, Field(ge=1e-3, le=1000.0)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stop: Stop | Stops | None = None

    def params(self, logprobs: int | None) -> SamplingParams:
        """The same for the engine."""
        given = {name: value for name, option in _NAMES.items() if (value := getattr(self, option)) is not None}
        if self.seed is not None and self.seed >= 0:
            given["seed"] = self.seed
        tokens = self.num_predict
        if tokens == 0:
            raise RequestError("options.num_predict must be at least 1, or -1 for no limit", parameter="options")
        return SamplingParams(max_tokens=None if tokens is None or tokens < 0 else tokens, logprobs=logprobs, **given)


class Named(Strict):
    """A model, and how long it stays loaded when it has answered: seconds or a span, 0 not at all, below 0 for ever."""

    model: str
    keep_alive: Annotated[str, Field(max_length=LONGEST, pattern=PATTERN)] | float | None = None

    def keep(self) -> Keep:
        """The same for the fleet."""
        return UNCHANGED if self.keep_alive is None else seconds(self.keep_alive, "keep_alive")

    @property
    def dismisses(self) -> bool:
        """Whether the model is to go at once."""
        return self.keep_alive is not None and self.keep() == 0


class Asking(Named):
    """What generate and chat have in common. Answers are streamed unless told otherwise."""

    stream: bool | None = None
    options: Options | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None

    @property
    def streams(self) -> bool:
        """Whether the answer is streamed."""
        return self.stream is not False

    def params(self, llm: LLM) -> SamplingParams:
        """How the answer is sampled."""
        options = self.options or Options()
        options.check(llm)
        params = options.params((self.top_logprobs or 0) if self.logprobs else None)
        if self.format in (None, ""):
            return params
        if self.format == "json":
            return replace(params, structured_outputs=StructuredOutputs(json_object=True, parameter="format"))
        return replace(params, structured_outputs=StructuredOutputs(json=self.format, parameter="format"))

    def variables(self, llm: LLM) -> Json:
        """What `think` is to the chat template."""
        if self.think is None:
            return {}
        return {"reasoning_effort": self.think} if isinstance(self.think, str) else llm.reasoning_variables(self.think)


class GenerateRequest(Asking):
    """POST /api/generate. Without a prompt it only asks that the model be loaded; with a suffix the answer is what lies
    between the two.
    """

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    suffix: str | None = None
    template: Literal[""] | None = None
    context: Annotated[list[int], Field(max_length=0)] | None = None
    images: Annotated[list[str], Field(max_length=0)] | None = None

    def conversation(self, llm: LLM) -> Conversation:
        """The prompt as what a user says."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        user = {"role": "user", "content": self.prompt or ""}
        return Conversation(messages=[*system, user], variables=self.variables(llm))


class OllamaFunction(Strict):
    """What is called, and with what."""

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any]
    index: Natural | None = None


class OllamaToolCall(Strict):
    """A call of an earlier answer, sent back."""

    id: str | None = None
    type: Literal["function"] | None = None
    function: OllamaFunction


class OllamaMessage(Strict):
    """One message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    images: Annotated[list[str], Field(max_length=0)] | None = None


class OllamaChatRequest(Asking):
    """POST /api/chat. Without messages it only asks that the model be loaded."""

    messages: list[OllamaMessage] | None = None
    tools: list[Tool] | None = None

    def conversation(self, llm: LLM) -> Conversation:
        """The messages and tools."""
        return Conversation(
            messages=_with_ids(self.messages or ()),
            tools=[tool.model_dump(exclude_none=True) for tool in self.tools or []],
            variables=self.variables(llm),
        )


class EmbedRequest(Named):
    """POST /api/embed. What is too long is cut only if `truncate` says so."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    truncate: bool | None = None
    dimensions: Count | None = None
    options: ContextOption | None = None


class ShowRequest(Strict):
    """POST /api/show; `verbose` tells long lists too."""

    model: str
    verbose: bool | None = None


class PullRequest(Strict):
    """POST /api/pull."""

    model: str
    stream: bool | None = None
    insecure: Literal[False] | None = None


class DeleteRequest(Strict):
    """DELETE /api/delete."""

    model: str


def _with_ids(messages: Sequence[OllamaMessage]) -> list[Json]:
    """Messages in OpenAI's form. Calls may have no ids here: they get some, and results name those they are for, by
    the function's name or else in order.
    """
    found: list[Json] = []
    open_calls: list[tuple[str, str]] = []  # ids and names of the calls without a result
    count = 0
    for message in messages:
        said: Json = {"role": message.role, "content": message.content or ""}
        if message.thinking is not None:
            said["reasoning_content"] = message.thinking
        for call in message.tool_calls or ():
            call_id = call.id or f"call{count:05}"  # nine letters and digits, which Mistral's templates insist on
            count += 1
            open_calls.append((call_id, call.function.name))
            arguments = json.dumps(call.function.arguments, ensure_ascii=False)
            said.setdefault("tool_calls", []).append(function_call(call_id, call.function.name, arguments))
        if message.role == "tool":
            answered = _answered(message, open_calls)
            if answered is not None:
                open_calls.remove(answered)
                said["tool_call_id"], said["name"] = answered
            elif message.tool_name is not None:
                said["name"] = message.tool_name
        found.append(said)
    return found


def _answered(message: OllamaMessage, open_calls: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The call that a tool's message is the result of."""
    for call_id, name in open_calls:
        if message.tool_call_id in (None, call_id) and message.tool_name in (None, name):
            return call_id, name
    return None
