"""POST /api/generate, /api/chat and /api/embed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from edgert_models.errors import RequestError
from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from edgert import LLM, Chunk, Completion, SamplingParams
from edgert.chat import ChatPrompt
from edgert.completion import ToolCall
from edgert.server.conversation import prompt_of
from edgert.server.errors import Json
from edgert.server.ollama.requests import ContextOption, EmbedRequest, GenerateRequest, OllamaChatRequest
from edgert.server.openai.chat import logprobs
from edgert.server.stream import OLLAMA, events, start_one, whole
from edgert.server.vectors import embed_each

__all__ = ["EmbedRequest", "GenerateRequest", "OllamaChatRequest", "chat", "embed", "generate", "unloaded"]

Say = Callable[[str, str, list[ToolCall]], Json]
"""What an answer says (text, reasoning, calls), as fields of a route's response."""


async def generate(llm: LLM, body: GenerateRequest, request: Request) -> Response:
    """Continue or answer a prompt."""
    if not body.prompt:
        return JSONResponse({**_head(llm), "response": "", "done": True, "done_reason": "load"})
    params = body.params(llm)
    # Without a template there is no other way than to go on where the prompt ends.
    raw = body.raw or (not llm.has_chat_template and body.system is None and body.think is None)
    prompt: str | list[int] | ChatPrompt
    if body.suffix:
        if body.system or body.think:
            raise RequestError("suffix: what is filled in is no answer; leave system and think out", parameter="suffix")
        prompt = llm.infill_prompt(body.prompt, body.suffix)
    else:
        prompt = body.prompt if raw else await prompt_of(llm, body.conversation(llm))

    def say(text: str, reasoning: str, calls: list[ToolCall]) -> Json:
        return {"response": text, **({"thinking": reasoning} if reasoning else {})}

    return await _answer(llm, prompt, params, request, say, streams=body.streams)


async def chat(llm: LLM, body: OllamaChatRequest, request: Request) -> Response:
    """Answer a conversation."""
    if not body.messages:
        message = {"role": "assistant", "content": ""}
        return JSONResponse({**_head(llm), "message": message, "done": True, "done_reason": "load"})
    params = body.params(llm)
    prompt = await prompt_of(llm, body.conversation(llm))

    def say(text: str, reasoning: str, calls: list[ToolCall]) -> Json:
        message: Json = {"role": "assistant", "content": text}
        if reasoning:
            message["thinking"] = reasoning
        if calls:
            message["tool_calls"] = [_call(index, call) for index, call in enumerate(calls)]
        return {"message": message}

    return await _answer(llm, prompt, params, request, say, streams=body.streams)


async def embed(llm: LLM, body: EmbedRequest, request: Request) -> Response:
    """A vector for each input."""
    (body.options or ContextOption()).check(llm)
    texts = [body.input] if isinstance(body.input, str) else body.input
    begin = time.perf_counter()
    found = await embed_each(llm, texts, request, dimensions=body.dimensions, truncate=body.truncate is True)
    return JSONResponse(
        {
            "model": llm.name,
            "embeddings": [vector.tolist() for vector in found.vectors],
            "total_duration": _nanoseconds(time.perf_counter() - begin),
            "prompt_eval_count": found.tokens,
        }
    )


async def _answer(
    llm: LLM, prompt: str | list[int] | ChatPrompt, params: SamplingParams, request: Request, say: Say, *, streams: bool
) -> Response:
    begin = time.perf_counter()
    stream = await start_one(llm, prompt, params)

    def probabilities(part: Chunk | Completion) -> Json:
        found = logprobs(llm, part.logprobs)
        return {} if found is None else {"logprobs": found["content"]}

    if not streams:
        done = await whole(stream, request)
        said = say(done.text, done.reasoning or "", done.tool_calls)
        return JSONResponse({**_head(llm), **said, **probabilities(done), **_ending(done, begin)})

    def each(chunk: Chunk) -> Iterator[Json]:
        if chunk.text or chunk.reasoning or chunk.logprobs:
            yield {**_head(llm), **say(chunk.text, chunk.reasoning, []), **probabilities(chunk), "done": False}
        done = stream.completion
        if done is not None:
            if done.tool_calls:  # whole: nothing can be taken back
                yield {**_head(llm), **say("", "", done.tool_calls), "done": False}
            yield {**_head(llm), **say("", "", []), **_ending(done, begin)}

    return events(stream, [], each, OLLAMA)


def unloaded(name: str, said: Json) -> Response:
    """What is said to one who only wanted a model to go."""
    return JSONResponse({**_named(name), **said, "done": True, "done_reason": "unload"})


def _head(llm: LLM) -> Json:
    return _named(llm.name)


def _named(name: str) -> Json:
    return {"model": name, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}


def _call(index: int, call: ToolCall) -> Json:
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": json.loads(call.arguments)}}


def _ending(done: Completion, begin: float) -> Json:
    """What the last piece tells; the model was loaded before."""
    return {
        "done": True,
        "done_reason": "length" if done.finish_reason == "length" else "stop",
        "total_duration": _nanoseconds(time.perf_counter() - begin),
        "load_duration": 0,
        "prompt_eval_count": done.usage.prompt_tokens,
        "prompt_eval_duration": _nanoseconds(done.timings.prefill),
        "eval_count": done.usage.completion_tokens,
        "eval_duration": _nanoseconds(done.timings.decode),
        **({"dropped_count": done.usage.dropped_tokens} if done.usage.dropped_tokens else {}),
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
