"""POST /v1/completions."""

from __future__ import annotations

import time
import uuid

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from edgert import LLM, Usage
from edgert.completion import Chunk
from edgert.engine.sampling import TokenLogprob
from edgert.server.errors import Json
from edgert.server.openai.chat import usage
from edgert.server.openai.requests import CompletionRequest
from edgert.server.stream import choice_events, start, total, whole_choices

__all__ = ["CompletionRequest", "answer"]


async def answer(llm: LLM, body: CompletionRequest, request: Request) -> Response:
    """Continue the prompt and answer in OpenAI's form."""
    head: Json = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": llm.name,
    }
    streams = await start(llm, body.tokens(llm), body.params(), body.n or 1)
    if not body.stream:
        completions = await whole_choices(streams, request)
        choices = [
            {
                "index": index,
                "text": completion.text,
                "logprobs": logprobs(llm, completion.logprobs, 0),
                "finish_reason": completion.finish_reason,
            }
            for index, completion in enumerate(completions)
        ]
        counts = total([completion.usage for completion in completions])
        return JSONResponse({**head, "choices": choices, "usage": usage(counts)})

    offsets = [0] * len(streams)

    def each(index: int, chunk: Chunk) -> list[Json]:
        choice = {
            "index": index,
            "text": chunk.text,
            "logprobs": logprobs(llm, chunk.logprobs, offsets[index]),
            "finish_reason": chunk.finish_reason,
        }
        offsets[index] += len(chunk.text)
        return [{**head, "choices": [choice]}]

    def last(counts: Usage) -> list[Json]:
        return [{**head, "choices": [], "usage": usage(counts)}] if body.wants_usage else []

    return choice_events(streams, [], each, last)


def logprobs(llm: LLM, choices: list[TokenLogprob] | None, offset: int) -> Json | None:
    """Log-probabilities in the completion form; `offset` is where in the text the first token begins."""
    if choices is None:
        return None

    def text(token: int) -> str:
        return llm.tokenizer.token_bytes(token).decode(errors="replace")

    offsets = []
    for choice in choices:
        offsets.append(offset)
        offset += len(text(choice.token))
    return {
        "tokens": [text(choice.token) for choice in choices],
        "token_logprobs": [choice.logprob for choice in choices],
        "top_logprobs": [{text(token): logprob for token, logprob in choice.top} for choice in choices],
        "text_offset": offsets,
    }
