"""POST /infill: the text between two others, in the form of llama.cpp's server (`tools/server/README.md`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from edgert_models.errors import RequestError
from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.responses import Response

from edgert import LLM, Chunk, Completion, SamplingParams
from edgert.server.errors import Json
from edgert.server.native.completion import LlamaCppFields, ending
from edgert.server.openai.requests import SamplingFields
from edgert.server.stream import COMPLETION, events, whole
from edgert.server.strict import WHOLE, Strict


class ExtraFile(Strict):
    """Another file of the project, or a piece of one; llama.vim says `time`, when it was looked at, for itself."""

    filename: str
    text: str
    time: Any = None


class InfillRequest(LlamaCppFields, SamplingFields):
    """POST /infill. `prompt` is how the middle begins; `n_predict` is llama.cpp's name for max_tokens, -1: no limit,
    0: nothing, for the prompt to be found later.
    """

    model: str | None = None  # type: ignore[assignment]
    input_prefix: str
    input_suffix: str
    input_extra: list[ExtraFile] | None = None
    prompt: str | None = None
    n_predict: Annotated[int, Field(ge=-1), WHOLE] | None = None
    n: Annotated[int, Field(ge=1, le=1), WHOLE] | None = None

    def tokens(self, llm: LLM) -> list[int]:
        """What is continued."""
        files = [(extra.filename, extra.text) for extra in self.input_extra or ()]
        ids = llm.infill_prompt(self.input_prefix, self.input_suffix, files=files)
        return ids + llm.tokenizer.encode(self.prompt or "", add_special=False, parse_special=False)

    def params(self) -> SamplingParams:
        """How it is sampled. One token is made where none is wanted."""
        if self.n_predict is not None and self.max_tokens is not None:
            raise RequestError("n_predict: it is llama.cpp's name for max_tokens; give one", parameter="n_predict")
        limit = None if self.n_predict is None or self.n_predict < 0 else max(1, self.n_predict)
        return replace(self.sampling(default_max_tokens=limit, logprobs=None), **self.by_lines())

    def answer(self, llm: LLM, done: Completion) -> Json:
        """What is told of the whole answer."""
        if self.n_predict == 0:
            done = replace(done, text="", finish_reason="length", usage=replace(done.usage, completion_tokens=0))
        return ending(llm, done)


async def answer(llm: LLM, body: InfillRequest, request: Request) -> Response:
    """Fill in."""
    stream = llm.astream(body.tokens(llm), body.params())
    if not body.stream:
        return JSONResponse(body.chosen(body.answer(llm, await whole(stream, request))))

    def each(chunk: Chunk) -> list[Json]:
        said: list[Json] = [{"content": chunk.text, "stop": False}] if chunk.text and body.n_predict != 0 else []
        if stream.completion is None:
            return said
        return [*said, body.chosen({**body.answer(llm, stream.completion), "content": ""})]

    return events(stream, [], each, COMPLETION)
