"""POST /v1/completions."""

from __future__ import annotations

import time
import uuid

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from edgert import LLM
from edgert.completion import Chunk
from edgert.engine.sampling import TokenLogprob
from edgert.server.errors import Json
from edgert.server.openai.chat import usage
from edgert.server.openai.requests import CompletionRequest
from edgert.server.stream import events, whole

__all__ = ["CompletionRequest", "answer"]


async def answer(llm: LLM, body: CompletionRequest, request: Request) -> Response:
    """Continue the prompt and answer in OpenAI's form."""
    head: Json = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": llm.name,
    }
    stream = llm.astream(body.prompt, body.params())
    if not body.stream:
        completion = await whole(stream, request)
        choice = {
            "index": 0,
            "text": completion.text,
            "logprobs": logprobs(llm, completion.logprobs, 0),
            "finish_reason": completion.finish_reason,
        }
        return JSONResponse({**head, "choices": [choice], "usage": usage(completion.usage)})

    offset = 0

    def each(chunk: Chunk) -> list[Json]:
        nonlocal offset
        choice = {
            "index": 0,
            "text": chunk.text,
            "logprobs": logprobs(llm, chunk.logprobs, offset),
            "finish_reason": chunk.finish_reason,
        }
        offset += len(chunk.text)
        items: list[Json] = [{**head, "choices": [choice]}]
        if chunk.usage is not None and body.wants_usage:
            items.append({**head, "choices": [], "usage": usage(chunk.usage)})
        return items

    return events(stream, [], each)


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
