"""POST /v1/embeddings."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.responses import Response

from edgert import LLM
from edgert.server.strict import Count, Strict, TokenIds
from edgert.server.vectors import Vector, embed_each

_Text = Annotated[str, Field(min_length=1)]


class EmbeddingRequest(Strict):
    """POST /v1/embeddings."""

    model: str
    input: (
        _Text
        | TokenIds
        | Annotated[list[_Text], Field(min_length=1, max_length=2048)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=2048)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None

    def inputs(self) -> list[str] | list[list[int]]:
        """The texts, or token ids, one entry for each vector."""
        if isinstance(self.input, str):
            return [self.input]
        one = isinstance(self.input[0], int)
        return [self.input] if one else self.input  # type: ignore[return-value]


async def answer(llm: LLM, body: EmbeddingRequest, request: Request) -> Response:
    """A vector for each input, in OpenAI's form."""
    found = await embed_each(llm, body.inputs(), request, dimensions=body.dimensions)
    encode: Callable[[Vector], Any] = _base64 if body.encoding_format == "base64" else (lambda vector: vector.tolist())
    data = [{"object": "embedding", "index": i, "embedding": encode(vector)} for i, vector in enumerate(found.vectors)]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return JSONResponse({"object": "list", "data": data, "model": llm.name, "usage": usage})


def _base64(vector: Vector) -> str:
    """Little-endian float32."""
    return base64.b64encode(vector.astype(np.dtype("<f4")).tobytes()).decode()
