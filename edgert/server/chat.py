"""POST /v1/chat/completions."""

from __future__ import annotations

import time
import uuid
from typing import Any

from edgert_models.errors import UnsupportedError
from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from edgert import LLM, Usage
from edgert.completion import Chunk
from edgert.engine.sampling import TokenLogprob
from edgert.server.protocol import ChatRequest
from edgert.server.stream import Json, events, start, total, whole

__all__ = ["ChatRequest", "answer"]


async def answer(llm: LLM, body: ChatRequest, request: Request) -> Response:
    """Render the messages, run them, and answer in OpenAI's form."""
    params = body.params()
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    if not llm.has_chat_template:
        raise UnsupportedError(f"the model '{llm.name}' has no chat template; use /v1/completions")
    # The template runs in a process of its own; waiting for it must not hold up the others.
    tokens = await run_in_threadpool(llm.chat_tokens, messages)
    head: Json = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": llm.name}
    streams = await start(llm, tokens, params, body.n or 1)
    if not body.stream:
        completions = await whole(streams, request)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": completion.text, "refusal": None},
                "logprobs": logprobs(llm, completion.logprobs),
                "finish_reason": completion.finish_reason,
            }
            for index, completion in enumerate(completions)
        ]
        counts = total([completion.usage for completion in completions])
        return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": usage(counts)})

    head["object"] = "chat.completion.chunk"

    def delta(index: int, content: Json, chunk: Chunk | None = None, finish_reason: str | None = None) -> Json:
        choice = {
            "index": index,
            "delta": content,
            "logprobs": None if chunk is None else logprobs(llm, chunk.logprobs),
            "finish_reason": finish_reason,
        }
        return {**head, "choices": [choice]}

    def each(index: int, chunk: Chunk) -> list[Json]:
        items = [delta(index, {"content": chunk.text}, chunk)] if chunk.text or chunk.logprobs else []
        return items + ([delta(index, {}, finish_reason=chunk.finish_reason)] if chunk.finish_reason else [])

    def last(counts: Usage) -> list[Json]:
        return [{**head, "choices": [], "usage": usage(counts)}] if body.wants_usage else []

    first = [delta(index, {"role": "assistant", "content": ""}) for index in range(len(streams))]
    return events(streams, first, each, last)


def usage(counts: Usage) -> dict[str, Any]:
    """Token counts in OpenAI's form."""
    return {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.prompt_tokens + counts.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": counts.cached_tokens},
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
