"""What comes back: completions, and the chunks of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgert.engine.sampling import TokenLogprob

FinishReason = Literal["stop", "length", "tool_calls"]
"""stop: the model ended its answer, or a stop text or stop token came; length: max_tokens, or the context is full;
tool_calls: as stop, and the answer calls tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts. `cached_tokens` of the prompt were in the prefix cache. `dropped_tokens` were left out because the
    context does not hold them (see `SamplingParams.overflow`); those of a prompt are in no other count.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    dropped_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds: waiting in the queue, computing the prompt (until the first token), generating the tokens after it.

    `time_to_first_token` counts from the request. Rates are tokens per second: of the prompt those that the prefix
    cache did not have, of the answer those after the first; 0 where there is none.

    Speculation guessed `guessed_tokens`, of which `right_guesses` became tokens of the answer. That is told here, since
    with "auto" it depends on time.
    """

    queue: float
    prefill: float
    decode: float
    time_to_first_token: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    guessed_tokens: int
    right_guesses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a tool: `arguments` is the text of a JSON object, `id` what the tool's message must name."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A piece of a call, the `index`-th to begin in the answer: first its id and name, then its arguments' text.

    `dropped`: what had begun is no call after all (malformed, or cut off); its text comes as content.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    dropped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """An answer.

    `token_ids` are all tokens that were generated for it, the one that ended it included; `text` ends before a stop
    text, and leaves control tokens out. Of an answer in a chat, `reasoning` is what the model wrote for itself before
    (None where nothing), `tool_calls` are its calls, and `text` is the rest. `logprobs` has an entry for each of
    `token_ids` if they were asked for. `stop` is the text or the token that ended the answer, None where it was
    neither. `seed` gives the same answer again.
    """

    text: str
    reasoning: str | None
    tool_calls: list[ToolCall]
    token_ids: list[int]
    finish_reason: FinishReason
    stop: str | int | None
    logprobs: list[TokenLogprob] | None
    usage: Usage
    timings: Timings
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a streamed answer: the text since the last one (or reasoning, or pieces of calls), and the tokens.

    The last chunk, and only it, has `finish_reason`, `usage` and `timings`; its text may be empty. The pieces together
    are the Completion's text, reasoning, calls, tokens and logprobs.
    """

    text: str
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    token_ids: list[int]
    logprobs: list[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None
    stop: str | int | None = None
    usage: Usage | None = None
    timings: Timings | None = None
