"""OpenAI's requests as strict models: every field is honoured, or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from edgert_models.errors import RequestError
from pydantic import Field

from edgert import LLM, SamplingParams
from edgert.engine.overflow import Overflow
from edgert.engine.params import MAX_BREAKER
from edgert.server.conversation import Conversation
from edgert.server.strict import (
    WHOLE,
    Count,
    Natural,
    Penalty,
    Probability,
    Seed,
    Stop,
    Stops,
    Strict,
    Temperature,
    TokenIds,
)
from edgert.server.structured import StructuredFields

Repetition = Annotated[float, Field(ge=1e-3, le=1e3)]
LastN = Annotated[int, Field(ge=-1), WHOLE]
Breaker = Annotated[str, Field(min_length=1, max_length=MAX_BREAKER)]

MAX_CHOICES = 128


class TextPart(Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class CalledFunction(Strict):
    """What a tool call calls; `arguments` is JSON text."""

    name: str
    arguments: str


class MessageToolCall(Strict):
    """A call that an assistant's message holds."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Strict):
    """One message of a conversation. An answer's message can be sent back as it is."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    refusal: None = None


class Function(Strict):
    """A function that an answer may call; `parameters` is the JSON schema of its arguments."""

    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool of a request."""

    type: Literal["function"]
    function: Function


class StreamOptions(Strict):
    """What a stream carries besides text."""

    include_usage: bool = False


class SamplerFields(StructuredFields):
    """How an answer is drawn, and what ends it: SamplingParams but for their `max_tokens`, bias and logprobs."""

    min_tokens: Natural | None = None
    samplers: list[str] | None = None
    temperature: Temperature | None = None
    dynatemp_range: Temperature | None = None
    dynatemp_exponent: Annotated[float, Field(ge=0.0, le=100.0)] | None = None
    top_n_sigma: Annotated[float, Field(ge=-1.0, le=100.0)] | None = None
    top_k: Natural | None = None
    typical_p: Probability | None = None
    top_p: Probability | None = None
    min_p: Probability | None = None
    xtc_probability: Probability | None = None
    xtc_threshold: Probability | None = None
    repetition_penalty: Repetition | None = None
    repeat_penalty: Repetition | None = None
    repeat_last_n: LastN | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    dry_multiplier: Annotated[float, Field(ge=0.0, le=100.0)] | None = None
    dry_base: Annotated[float, Field(ge=1.0, le=100.0)] | None = None
    dry_allowed_length: Natural | None = None
    dry_penalty_last_n: LastN | None = None
    dry_sequence_breakers: Annotated[list[Breaker], Field(max_length=8)] | None = None
    mirostat: Annotated[int, Field(ge=0, le=2), WHOLE] | None = None
    mirostat_tau: Annotated[float, Field(ge=0.0, le=100.0)] | None = None
    mirostat_eta: Probability | None = None
    ignore_eos: bool | None = None
    timeout: Annotated[float, Field(ge=1e-3, le=1e6)] | None = None
    overflow: Overflow | None = None
    seed: Seed | None = None
    stop: Stop | Stops | None = None

    def drawing(self, **more: Any) -> SamplingParams:
        """SamplingParams of these fields, and `more`; RequestError names what is out of range."""
        given = {name: value for name in _SAME if (value := getattr(self, name)) is not None}
        if self.repeat_penalty is not None:  # llama.cpp's name
            if self.repetition_penalty is not None:
                raise RequestError("repeat_penalty and repetition_penalty are the same", parameter="repeat_penalty")
            given["repetition_penalty"] = self.repeat_penalty
        return SamplingParams(structured_outputs=self.content(), **{**given, **more})


_SAME = {each.name for each in fields(SamplingParams)} & SamplerFields.model_fields.keys() - {"structured_outputs"}
"""Fields that SamplingParams calls alike and takes as they are."""


class SamplingFields(SamplerFields):
    """What chat and completion requests have in common."""

    model: str
    max_tokens: Count | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=1024)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    def sampling(self, *, default_max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """The request's SamplingParams; RequestError names what is out of range."""
        return self.drawing(
            max_tokens=self.max_tokens or default_max_tokens,
            logprobs=logprobs,
            logit_bias={token_id(key): bias for key, bias in (self.logit_bias or {}).items()},
        )

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatTemplateFields(Strict):
    """What a conversation's prompt is made from."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def conversation(self) -> Conversation:
        """Messages, tools and variables for the prompt."""
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return Conversation(
            messages=[message.model_dump(exclude_none=True) for message in self.messages],
            tools=[]
            if self.tool_choice == "none"
            else [tool.model_dump(exclude_none=True) for tool in self.tools or []],
            tool_choice="auto" if self.tool_choice is None else self.tool_choice,
            parallel=self.parallel_tool_calls is not False,
            variables={**effort, **(self.chat_template_kwargs or {})},
        )


class ChatRequest(ChatTemplateFields, SamplingFields):
    """POST /v1/chat/completions. Nothing is kept, so that what OpenAI would label it with (`metadata`, keys and
    identifiers) changes nothing.
    """

    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None

    def params(self) -> SamplingParams:
        """max_completion_tokens is the newer name of max_tokens and wins; without either the context is the limit."""
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        params = self.sampling(default_max_tokens=None, logprobs=logprobs)
        return params if self.max_completion_tokens is None else replace(params, max_tokens=self.max_completion_tokens)


class CompletionRequest(SamplingFields):
    """POST /v1/completions. With a `suffix` the answer is what lies between it and the prompt."""

    prompt: str | TokenIds
    echo: Literal[False] | None = None
    best_of: Count | None = None
    suffix: str | None = None
    logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None

    def tokens(self, llm: LLM) -> str | Sequence[int]:
        """What is continued."""
        if self.suffix is None:
            return self.prompt
        if not isinstance(self.prompt, str):
            raise RequestError("suffix: the prompt must be text too, not token ids", parameter="suffix")
        return llm.infill_prompt(self.prompt, self.suffix)

    def params(self) -> SamplingParams:
        """As OpenAI's: 16 tokens where the request does not say. RequestError where more answers are asked for than
        are to be returned.
        """
        if self.best_of is not None and self.best_of != (self.n or 1):
            reason = f"best_of must be n, which is {self.n or 1}: all answers are returned, and none is chosen"
            raise RequestError(reason, parameter="best_of")
        return self.sampling(default_max_tokens=16, logprobs=self.logprobs)


def token_id(key: str) -> int:
    """A key of logit_bias: a token id in decimal."""
    if not (key.isascii() and key.isdigit() and len(key) < 10):
        raise RequestError(f"logit_bias: {key!r} is not a token id", parameter="logit_bias")
    return int(key)
