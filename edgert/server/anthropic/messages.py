"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from edgert import LLM, Chunk, Completion, Usage
from edgert.server.anthropic.requests import CountRequest, MessagesRequest
from edgert.server.blocks import Block, Blocks, Change
from edgert.server.conversation import prompt_of
from edgert.server.errors import Json
from edgert.server.stream import ANTHROPIC, events, start_one, whole

__all__ = ["CountRequest", "MessagesRequest", "answer", "count"]


async def count(llm: LLM, body: CountRequest) -> Response:
    """How many tokens the prompt has."""
    prompt = await prompt_of(llm, body.conversation(llm))
    return JSONResponse({"input_tokens": len(prompt.token_ids)})


async def answer(llm: LLM, body: MessagesRequest, request: Request) -> Response:
    """Run the conversation, and answer in blocks."""
    params = body.params()
    prompt = await prompt_of(llm, body.conversation(llm))
    stream = await start_one(llm, prompt, params)
    blocks = Blocks()
    head: Json = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": llm.name}
    if not body.stream:
        completion = await whole(stream, request, blocks.push)
        blocks.finish(completion)
        content = [_block(block, block.text) for block in blocks.blocks]
        return JSONResponse({**head, "content": content, **_ending(completion), "usage": _usage(completion.usage)})

    # What the prefix cache had is known at the end; then the counts are told again.
    begun = _usage(Usage(prompt_tokens=len(prompt.token_ids), completion_tokens=0, cached_tokens=0))
    start = {**head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": begun}

    def each(chunk: Chunk) -> Iterator[Json]:
        yield from map(_told, blocks.push(chunk))
        completion = stream.completion
        if completion is not None:
            yield from map(_told, blocks.finish(completion))
            yield {"type": "message_delta", "delta": _ending(completion), "usage": _usage(completion.usage)}
            yield {"type": "message_stop"}

    return events(stream, [{"type": "message_start", "message": start}], each, ANTHROPIC)


def _told(change: Change) -> Json:
    """The event that tells of a change."""
    block = change.block
    match change.step:
        case "begin":
            return {"type": "content_block_start", "index": block.index, "content_block": _block(block, "")}
        case "more":
            key, kind = {
                "reasoning": ("thinking", "thinking_delta"),
                "text": ("text", "text_delta"),
                "call": ("partial_json", "input_json_delta"),
            }[block.kind]
            return {"type": "content_block_delta", "index": block.index, "delta": {"type": kind, key: change.text}}
        case "end":
            return {"type": "content_block_stop", "index": block.index}


def _block(block: Block, text: str) -> Json:
    match block.kind:
        case "reasoning":
            return {"type": "thinking", "thinking": text, "signature": ""}
        case "text":
            return {"type": "text", "text": text}
        case "call":
            return {"type": "tool_use", "id": block.call_id, "name": block.name, "input": json.loads(text or "{}")}


def _ending(completion: Completion) -> Json:
    stop = completion.stop if isinstance(completion.stop, str) else None
    ended = "end_turn" if stop is None else "stop_sequence"
    reason = {"length": "max_tokens", "tool_calls": "tool_use", "stop": ended}[completion.finish_reason]
    return {"stop_reason": reason, "stop_sequence": stop}


def _usage(usage: Usage) -> Json:
    """Input tokens are those that were not found in the cache. Beyond Anthropic's form: what was left out of a prompt,
    if anything was.
    """
    dropped = {"dropped_input_tokens": usage.dropped_tokens} if usage.dropped_tokens else {}
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        **dropped,
    }
