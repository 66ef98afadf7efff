"""POST /rerank: which documents answer a query best, in Jina's form, as llama.cpp's server has it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.responses import Response

from edgert import LLM
from edgert.server.native.requests import OfModel
from edgert.server.stream import while_there
from edgert.server.strict import Count


class RerankRequest(OfModel):
    """POST /rerank."""

    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[str], Field(min_length=1, max_length=2048)]
    top_n: Count | None = None
    return_documents: bool | None = None


async def answer(llm: LLM, body: RerankRequest, request: Request) -> Response:
    """The documents by score, the best first."""

    async def rank() -> list[tuple[float, int]]:
        return [await llm.arank(body.query, document) for document in body.documents]

    found = await while_there(request, rank())
    best = sorted(range(len(found)), key=lambda index: -found[index][0])[: body.top_n]
    results = [
        {
            "index": index,
            "relevance_score": found[index][0],
            **({"document": {"text": body.documents[index]}} if body.return_documents else {}),
        }
        for index in best
    ]
    tokens = sum(count for _, count in found)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "model": llm.name, "results": results, "usage": usage})
