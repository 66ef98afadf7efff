"""POST /v1/chat/completions."""

from __future__ import annotations

import time
import uuid
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from edgert import LLM, Chunk, Completion, Usage
from edgert.engine.sampling import TokenLogprob
from edgert.server.conversation import function_call, prompt_of
from edgert.server.errors import Json
from edgert.server.openai.requests import ChatRequest
from edgert.server.stream import choice_events, start, total, whole_choices

__all__ = ["ChatRequest", "answer"]


async def answer(llm: LLM, body: ChatRequest, request: Request) -> Response:
    """Render the messages, run them, and answer in OpenAI's form."""
    params = body.params()
    prompt = await prompt_of(llm, body.conversation())
    head: Json = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": llm.name}
    streams = await start(llm, prompt, params, body.n or 1)
    if not body.stream:
        completions = await whole_choices(streams, request)
        choices = [
            {
                "index": index,
                "message": message(completion),
                "logprobs": logprobs(llm, completion.logprobs),
                "finish_reason": completion.finish_reason,
            }
            for index, completion in enumerate(completions)
        ]
        counts = total([completion.usage for completion in completions])
        return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": usage(counts)})

    head["object"] = "chat.completion.chunk"

    def item(index: int, content: Json, chunk: Chunk | None = None, finish_reason: str | None = None) -> Json:
        choice = {
            "index": index,
            "delta": content,
            "logprobs": None if chunk is None else logprobs(llm, chunk.logprobs),
            "finish_reason": finish_reason,
        }
        return {**head, "choices": [choice]}

    def each(index: int, chunk: Chunk) -> list[Json]:
        content = delta(chunk)
        items = [item(index, content or {"content": ""}, chunk)] if content or chunk.logprobs else []
        return items + ([item(index, {}, finish_reason=chunk.finish_reason)] if chunk.finish_reason else [])

    def last(counts: Usage) -> list[Json]:
        return [{**head, "choices": [], "usage": usage(counts)}] if body.wants_usage else []

    first = [item(index, {"role": "assistant", "content": ""}) for index in range(len(streams))]
    return choice_events(streams, first, each, last)


def message(completion: Completion) -> Json:
    """The assistant's message of a whole answer."""
    found: Json = {"role": "assistant", "content": completion.text, "refusal": None}
    if completion.reasoning is not None:
        found["reasoning_content"] = completion.reasoning
    if completion.tool_calls:
        found["content"] = completion.text or None
        found["tool_calls"] = [function_call(call.id, call.name, call.arguments) for call in completion.tool_calls]
    return found


def delta(chunk: Chunk) -> Json:
    """What a chunk adds to the message. A call that is dropped is not told again: its text comes as content."""
    found: Json = {}
    if chunk.reasoning:
        found["reasoning_content"] = chunk.reasoning
    if chunk.text:
        found["content"] = chunk.text
    calls: list[Json] = []
    for piece in chunk.tool_calls:
        if piece.name is not None:
            function = {"name": piece.name, "arguments": piece.arguments}
            calls.append({"index": piece.index, "id": piece.id, "type": "function", "function": function})
        elif piece.arguments:
            calls.append({"index": piece.index, "function": {"arguments": piece.arguments}})
    if calls:
        found["tool_calls"] = calls
    return found


def usage(counts: Usage) -> dict[str, Any]:
    """Token counts in OpenAI's form, and beyond it what was left out of a prompt, if anything was."""
    dropped = {"dropped_tokens": counts.dropped_tokens} if counts.dropped_tokens else {}
    return {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.prompt_tokens + counts.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": counts.cached_tokens, **dropped},
    }


def logprobs(llm: LLM, choices: list[TokenLogprob] | None) -> Json | None:
    """Log-probabilities in the chat form."""
    if choices is None:
        return None

    def one(token: int, logprob: float) -> Json:
        raw = llm.tokenizer.token_bytes(token)
        return {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw)}

    content = [
        {**one(choice.token, choice.logprob), "top_logprobs": [one(*other) for other in choice.top]}
        for choice in choices
    ]
    return {"content": content, "refusal": None}
