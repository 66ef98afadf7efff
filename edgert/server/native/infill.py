"""POST /infill: the text between two others, in the form of llama.cpp's server (`tools/server/README.md`)."""

from __future__ import annotations

from typing import Annotated

from edgert_models.errors import RequestError
from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.responses import Response

from edgert import LLM, Chunk, SamplingParams
from edgert.server.errors import Json
from edgert.server.native.completion import ending
from edgert.server.openai.requests import SamplingFields
from edgert.server.stream import COMPLETION, events, whole
from edgert.server.strict import WHOLE, Strict


class ExtraFile(Strict):
    """Another file of the project."""

    filename: str
    text: str


class InfillRequest(SamplingFields):
    """POST /infill. `prompt` is how the middle begins; `n_predict` is llama.cpp's name for max_tokens, -1: no limit."""

    model: str | None = None  # type: ignore[assignment]
    input_prefix: str
    input_suffix: str
    input_extra: list[ExtraFile] | None = None
    prompt: str | None = None
    n_predict: Annotated[int, Field(ge=-1), WHOLE] | None = None
    n: Annotated[int, Field(ge=1, le=1), WHOLE] | None = None
    cache_prompt: bool | None = None  # a prompt is found again either way

    def tokens(self, llm: LLM) -> list[int]:
        """What is continued."""
        files = [(extra.filename, extra.text) for extra in self.input_extra or ()]
        ids = llm.infill_prompt(self.input_prefix, self.input_suffix, files=files)
        return ids + llm.tokenizer.encode(self.prompt or "", add_special=False, parse_special=False)

    def params(self) -> SamplingParams:
        """How it is sampled."""
        if self.n_predict == 0 or (self.n_predict is not None and self.max_tokens is not None):
            reason = "n_predict must be at least 1 (or -1 for no limit), and not beside max_tokens"
            raise RequestError(reason, parameter="n_predict")
        limit = self.n_predict if self.n_predict is not None and self.n_predict > 0 else None
        return self.sampling(default_max_tokens=limit, logprobs=None)


async def answer(llm: LLM, body: InfillRequest, request: Request) -> Response:
    """Fill in."""
    stream = llm.astream(body.tokens(llm), body.params())
    if not body.stream:
        return JSONResponse(ending(llm, await whole(stream, request)))

    def each(chunk: Chunk) -> list[Json]:
        said: list[Json] = [{"content": chunk.text, "stop": False}] if chunk.text else []
        return said if stream.completion is None else [*said, {**ending(llm, stream.completion), "content": ""}]

    return events(stream, [], each, COMPLETION)
