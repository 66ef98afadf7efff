"""From the events of a request to text: decoding, stop texts, and the streams that users iterate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING

from edgert.completion import Chunk, Completion, FinishReason, Timings, Usage
from edgert.delivery import delivery
from edgert.engine.params import SamplingParams
from edgert.engine.request import Ending, Event, Failed, OnEvent, Request, Token
from edgert.reader import Piece, Reader
from edgert.text import Lines, StopStrings, StreamDecoder

if TYPE_CHECKING:
    import asyncio

    from edgert.engine.sampling import TokenLogprob
    from edgert.text import Tokenizer

Start = Callable[[OnEvent], Request]
"""Begins a request, which tells of its events."""


class Answer:
    """Gathers the events of one request; every way to get an answer goes through here, so all give the same.

    `reader` finds reasoning and tool calls in the text; without one it is all content. Without a tokenizer the text
    stays empty. A stop text ends the request as soon as its last character is there: the tokens that the engine may
    have generated meanwhile are not part of the answer.
    """

    def __init__(
        self, request: Request, params: SamplingParams, tokenizer: Tokenizer | None, reader: Reader | None = None
    ) -> None:
        self._request = request
        self._reader = reader or Reader()
        self._decoder: StreamDecoder | None = None
        if tokenizer is not None:
            # After a control token a text begins; after anything else the prompt's is continued.
            begins = tokenizer.is_control(request.history[request.prompt_tokens - 1])
            self._decoder = StreamDecoder(
                tokenizer, skip_special=True, shown=self._reader.shown, continuation=not begins
            )
        self._stops = StopStrings(tuple(params.stop))
        by_lines = params.min_indent or params.line_seconds is not None
        self._lines = Lines(params.min_indent, params.line_seconds) if by_lines else None
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprob] | None = None if params.logprobs is None else []
        self._given = 0  # tokens that chunks have reported
        self._first_at = self._last_at = 0.0
        self._finish_reason: FinishReason | None = None
        self._stop: str | int | None = None

    @property
    def finished(self) -> bool:
        """Whether the answer is complete."""
        return self._finish_reason is not None

    def push(self, event: Event) -> Chunk | None:
        """Take in an event; a chunk if there is text to show or the answer ends here. Raises what Failed carries."""
        piece = self.take(event)
        return self._chunk(piece) if piece or self.finished else None

    def take(self, event: Event) -> Piece:
        """Take in an event; what it makes certain. Raises what Failed carries."""
        if isinstance(event, Failed):
            raise event.error
        assert isinstance(event, Token)
        if not self._tokens:
            self._first_at = event.at
        self._last_at = event.at
        self._tokens.append(event.choice.token)
        if self._logprobs is not None:
            self._logprobs.append(event.choice)
        text = self._decoded(event)
        piece = self._reader.push(text, last=self.finished)
        if self._reader.done and not self.finished:
            self._finish_reason = "stop"
            self._request.cancel()
        if self._finish_reason == "stop" and self._reader.tool_calls:
            self._finish_reason = "tool_calls"
        return piece

    def completion(self) -> Completion:
        """The whole answer, once `finished`."""
        assert self._finish_reason is not None
        return Completion(
            text=self._reader.text,
            reasoning=self._reader.reasoning,
            tool_calls=self._reader.tool_calls,
            token_ids=list(self._tokens),
            finish_reason=self._finish_reason,
            stop=self._stop,
            logprobs=None if self._logprobs is None else list(self._logprobs),
            usage=self._usage(),
            timings=self._timings(),
            seed=self._request.seed,
        )

    def _decoded(self, event: Token) -> str:
        """The text that this token makes certain; notes how the answer ends."""
        stopped = event.ending is Ending.STOP
        piece = "" if self._decoder is None or stopped else self._decoder.push(event.choice.token)
        if event.ending and self._decoder is not None:
            piece += self._decoder.flush()
        text, _ = self._stops.push(piece)
        if event.ending:
            text += self._stops.flush()
            self._finish_reason = "length" if event.ending is Ending.LENGTH else "stop"
            self._stop = event.choice.token if stopped else None
        if self._stops.hit is not None:
            self._finish_reason, self._stop = "stop", self._stops.hit
            self._request.cancel()
        return text if self._lines is None else self._up_to_line(text, self._lines)

    def _up_to_line(self, text: str, lines: Lines) -> str:
        """The part of a text that is within the lines that may come; notes whether the answer ends by them."""
        text = lines.push(text, self._last_at - self._first_at)
        if lines.ended:
            self._finish_reason, self._stop = "length", None
            self._request.cancel()
        return text + lines.flush() if self.finished else text

    def _chunk(self, piece: Piece) -> Chunk:
        begin, self._given = self._given, len(self._tokens)
        return Chunk(
            text=piece.text,
            reasoning=piece.reasoning,
            tool_calls=piece.tool_calls,
            token_ids=self._tokens[begin:],
            logprobs=None if self._logprobs is None else self._logprobs[begin:],
            finish_reason=self._finish_reason,
            stop=self._stop,
            usage=self._usage() if self.finished else None,
            timings=self._timings() if self.finished else None,
        )

    def _usage(self) -> Usage:
        request = self._request
        return Usage(
            prompt_tokens=request.prompt_tokens,
            completion_tokens=len(self._tokens),
            cached_tokens=request.cached_tokens,
            dropped_tokens=request.dropped_tokens,
        )

    def _timings(self) -> Timings:
        request = self._request
        started = request.started_at or self._first_at
        prefill, decode = self._first_at - started, self._last_at - self._first_at
        computed, generated = request.prompt_tokens - request.cached_tokens, len(self._tokens) - 1
        return Timings(
            queue=started - request.submitted_at,
            prefill=prefill,
            decode=decode,
            time_to_first_token=self._first_at - request.submitted_at,
            prefill_tokens_per_second=computed / prefill if prefill > 0 else 0.0,
            decode_tokens_per_second=generated / decode if decode > 0 else 0.0,
            guessed_tokens=request.guessed_tokens,
            right_guesses=request.right_guesses,
        )


class Stream(Iterator[Chunk]):
    """The chunks of an answer as they come; the request is under way already. Dropping or closing it ends it.

    Iterating raises the request's error: CancelledError where the model was closed.
    """

    def __init__(
        self, start: Start, params: SamplingParams, tokenizer: Tokenizer | None, reader: Reader | None = None
    ) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._request = start(self._events.put)
        self._answer = Answer(self._request, params, tokenizer, reader)
        self._closed = False

    def __next__(self) -> Chunk:
        while not self._closed and not self._answer.finished:
            chunk = self._answer.push(self._events.get())
            if chunk is not None:
                return chunk
        raise StopIteration

    @property
    def completion(self) -> Completion | None:
        """The whole answer, after the last chunk."""
        return self._answer.completion() if self._answer.finished else None

    def close(self) -> None:
        """End the request now."""
        self._closed = True
        self._request.cancel()

    def __del__(self) -> None:
        if hasattr(self, "_request"):
            self._request.cancel()


class AsyncStream(AsyncIterator[Chunk]):
    """As Stream, for the running event loop; `aclose` or dropping it ends the request."""

    def __init__(
        self, start: Start, params: SamplingParams, tokenizer: Tokenizer | None, reader: Reader | None = None
    ) -> None:
        import asyncio  # not at the top: with ssl and all it takes long to import, and few need it

        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        put = self._events.put_nowait
        self._request = start(delivery(loop, put))
        self._answer = Answer(self._request, params, tokenizer, reader)
        self._closed = False

    async def __anext__(self) -> Chunk:
        while not self._closed and not self._answer.finished:
            chunk = self._answer.push(await self._events.get())
            if chunk is not None:
                return chunk
        raise StopAsyncIteration

    @property
    def completion(self) -> Completion | None:
        """The whole answer, after the last chunk."""
        return self._answer.completion() if self._answer.finished else None

    @property
    def dropped_tokens(self) -> int:
        """Tokens that have been left out so far because the context does not hold them."""
        return self._request.dropped_tokens

    async def aclose(self) -> None:
        """End the request now."""
        self._closed = True
        self._request.cancel()

    def __del__(self) -> None:
        if hasattr(self, "_request"):
            self._request.cancel()
