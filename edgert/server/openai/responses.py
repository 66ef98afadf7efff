"""POST /v1/responses: an answer as items (reasoning, message, calls), and the events that tell of them.

Source: OpenAI's API reference, and the types of its Python client (`openai.types.responses`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from edgert import LLM, Chunk, Completion
from edgert.server.blocks import Block, Blocks, Change
from edgert.server.conversation import prompt_of
from edgert.server.errors import Json, Problem, openai_form
from edgert.server.openai.response_request import ResponseRequest, Status
from edgert.server.stream import OPENAI, events, named_event, start_one, whole

__all__ = ["ResponseRequest", "answer"]


async def answer(llm: LLM, body: ResponseRequest, request: Request) -> Response:
    """Run the conversation, and answer in items."""
    prompt = await prompt_of(llm, body.conversation(llm))
    stream = await start_one(llm, prompt, body.params())
    response = _Response(llm, body)
    if not body.stream:
        completion = await whole(stream, request, response.blocks.push)
        response.blocks.finish(completion)
        return JSONResponse(response.finished(completion))

    def each(chunk: Chunk) -> Iterator[Json]:
        for change in response.blocks.push(chunk):
            yield from response.told(change)
        completion = stream.completion
        if completion is not None:
            for change in response.blocks.finish(completion):
                yield from response.told(change)
            last = response.finished(completion)
            yield response.event(f"response.{last['status']}", response=last)

    begun = response.begun()
    first = [response.event(f"response.{name}", response=begun) for name in ("created", "in_progress")]
    return events(stream, first, each, replace(OPENAI, piece=named_event, error=response.error, end=b""))


class _Response:
    """One response while it is made."""

    def __init__(self, llm: LLM, body: ResponseRequest) -> None:
        self.blocks = Blocks()
        self._ids: list[str] = []
        self._sequence = 0
        self._head: Json = {
            "id": _new_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "model": llm.name,
            "error": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None if body.reasoning is None else body.reasoning.effort, "summary": None},
            "store": False,
            "temperature": body.temperature,
            "text": {"format": _format(body)},
            "tool_choice": body.tool_choice or "auto",
            "tools": [tool.model_dump() for tool in body.tools or []],
            "top_p": body.top_p,
            "truncation": body.truncation or "disabled",
        }

    def begun(self) -> Json:
        """The response before anything is written."""
        return {**self._head, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}

    def finished(self, completion: Completion) -> Json:
        """The whole response."""
        cut = completion.finish_reason == "length"
        usage = completion.usage
        dropped = {"dropped_tokens": usage.dropped_tokens} if usage.dropped_tokens else {}
        return {
            **self._head,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._item(block, "completed", self._texts(block)) for block in self.blocks.blocks],
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0, **dropped},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": self.blocks.reasoning_tokens},
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            },
        }

    def event(self, kind: str, **fields: object) -> Json:
        """An event, numbered."""
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence - 1, **fields}

    def error(self, problem: Problem) -> Json:
        """What ends a stream that fails."""
        error = openai_form(problem)["error"]
        return self.event("error", code=error["code"] or error["type"], message=problem.message, param=problem.param)

    def told(self, change: Change) -> Iterator[Json]:
        """The events that tell of a change."""
        block = change.block
        item = {"item_id": self._id(block), "output_index": block.index}
        place = item if block.kind == "call" else {**item, "content_index": 0}
        name = {"reasoning": "reasoning_text", "text": "output_text", "call": "function_call_arguments"}[block.kind]
        logprobs: Json = {"logprobs": []} if block.kind == "text" else {}
        if change.step == "begin":
            added = self._item(block, "in_progress", [] if block.kind != "call" else "")
            yield self.event("response.output_item.added", output_index=block.index, item=added)
            if block.kind != "call":
                yield self.event("response.content_part.added", **place, part=_part(block, ""))
        elif change.step == "more":
            yield self.event(f"response.{name}.delta", **place, delta=change.text, **logprobs)
        elif block.kind == "call":
            yield self.event(f"response.{name}.done", **place, name=block.name, arguments=block.text)
        else:
            yield self.event(f"response.{name}.done", **place, text=block.text, **logprobs)
            yield self.event("response.content_part.done", **place, part=_part(block, block.text))
        if change.step == "end":
            done = self._item(block, "completed", self._texts(block))
            yield self.event("response.output_item.done", output_index=block.index, item=done)

    def _id(self, block: Block) -> str:
        prefix = {"reasoning": "rs", "text": "msg", "call": "fc"}
        while len(self._ids) <= block.index:
            self._ids.append(_new_id(prefix[self.blocks.blocks[len(self._ids)].kind]))
        return self._ids[block.index]

    def _texts(self, block: Block) -> list[Json] | str:
        return block.text if block.kind == "call" else [_part(block, block.text)]

    def _item(self, block: Block, status: Status, content: list[Json] | str) -> Json:
        """A block as an item; `content` is its parts, of a call its arguments."""
        head: Json = {"id": self._id(block), "status": status}
        match block.kind:
            case "reasoning":
                return {**head, "type": "reasoning", "summary": [], "content": content}
            case "text":
                return {**head, "type": "message", "role": "assistant", "content": content}
            case "call":
                call = {"call_id": block.call_id, "name": block.name, "arguments": content}
                return {**head, "type": "function_call", **call}


def _part(block: Block, text: str) -> Json:
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _format(body: ResponseRequest) -> Json:
    form = None if body.text is None else body.text.format
    return {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
