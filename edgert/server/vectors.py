"""Embeddings for a client, one text after the other, until it goes away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from edgert_models.errors import RequestError
from fastapi import Request
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from edgert import LLM
from edgert.server.stream import while_there

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector for each text, and the tokens of all."""

    vectors: list[Vector]
    tokens: int


async def embed_each(
    llm: LLM,
    texts: Sequence[str] | Sequence[list[int]],
    request: Request,
    *,
    dimensions: int | None = None,
    truncate: bool = False,
) -> Embedded:
    """Embed texts (or token ids). `dimensions` keeps the first so many numbers, scaled to length 1 again; `truncate`
    leaves away the tokens of a text that are too many for the context. RequestError names what is out of range.
    """
    width = llm.spec.width
    if dimensions is not None and dimensions > width:
        raise RequestError(f"dimensions: the model's vectors have {width}, not {dimensions}", parameter="dimensions")

    async def embed() -> Embedded:
        vectors, tokens = [], 0
        for text in texts:
            ids = await run_in_threadpool(llm.tokenize, text) if isinstance(text, str) else text
            if truncate:
                ids = ids[: llm.context]
            tokens += len(ids)
            vector = (await llm.aembed(ids))[:dimensions]
            if dimensions is not None:
                vector = vector / max(float(np.linalg.norm(vector)), float(np.finfo(np.float32).tiny))
            vectors.append(vector)
        return Embedded(vectors, tokens)

    return await while_there(request, embed())
