"""POST /completion: a continuation of prompts, in the form of llama.cpp's server (its `tools/server/README.md`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from edgert_models.errors import RequestError
from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from edgert import LLM, Completion, SamplingParams
from edgert.answer import AsyncStream
from edgert.completion import Chunk
from edgert.engine.sampling import TokenLogprob
from edgert.server.errors import Json
from edgert.server.openai.requests import SamplerFields
from edgert.server.stream import COMPLETION, choice_events, start, whole_choices
from edgert.server.strict import WHOLE, Natural, Strict, TokenId

MAX_PROMPTS = 128
Milliseconds = Annotated[int, Field(ge=-1, le=10**9), WHOLE]
Piece = Annotated[str, Field(min_length=1)] | TokenId
Biases = Annotated[float, Field(ge=-100.0, le=100.0)] | Literal[False]
Bias = (
    Annotated[dict[str, Biases], Field(max_length=1024)]
    | Annotated[list[Annotated[tuple[Piece, Biases], Field(strict=False)]], Field(max_length=1024)]
)
Mixed = Annotated[list[Piece], Field(min_length=1)]
"""Tokens and texts that make one prompt."""


class PromptString(Strict):
    """A text, as llama.cpp writes it where pictures may come beside it."""

    prompt_string: str


Prompt = str | Mixed | PromptString


class LlamaCppFields(Strict):
    """What llama.cpp's own routes have beside prompts and sampling. What is only a hint there may be given, and has no
    effect: `cache_prompt` and `id_slot` (prefixes are always kept, and found by all), `t_max_prompt_ms` (which does
    nothing in llama.cpp either).
    """

    cache_prompt: bool | None = None
    id_slot: Annotated[int, Field(ge=-1, le=2**31 - 1), WHOLE] | None = None
    t_max_prompt_ms: Milliseconds | None = None
    t_max_predict_ms: Milliseconds | None = None
    n_indent: Natural | None = None
    response_fields: Annotated[list[str], Field(max_length=64)] | None = None

    def by_lines(self) -> dict[str, Any]:
        """What SamplingParams call the fields that end an answer by its lines: a time of 0 or below is none."""
        limit = self.t_max_predict_ms
        return {"min_indent": self.n_indent or 0, "line_seconds": limit / 1000 if limit and limit > 0 else None}

    def chosen(self, answer: Json) -> Json:
        """The `response_fields` of an answer, under the names by which they are asked for: `a/b` is `b` in `a`. What is
        not there is left out; all are chosen where none is named.
        """
        if not self.response_fields:
            return answer
        found: Json = {}
        for path in self.response_fields:
            value: Any = answer
            for key in path.split("/"):
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                found[path] = value
        return found


class CompletionRequest(LlamaCppFields, SamplerFields):
    """POST /completion."""

    model: str | None = None
    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PROMPTS)]
    n_predict: Annotated[int, Field(ge=-1), WHOLE] | None = None
    logit_bias: Bias | None = None
    n_probs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None
    return_tokens: bool | None = None
    stream: bool | None = None

    def prompts(self, llm: LLM) -> tuple[list[list[int]], bool]:
        """Token ids of each prompt, and whether they were given as a list of prompts. A list with a token id in it is
        one prompt, as in llama.cpp.
        """
        given: Any = self.prompt
        several = isinstance(given, list) and not any(isinstance(each, int) for each in given)
        return [_ids(llm, each) for each in (given if several else [given])], several

    def params(self, llm: LLM) -> SamplingParams:
        """How answers are drawn: as many tokens as come, where `n_predict` is -1 or not given."""
        limit = None if self.n_predict is None or self.n_predict < 0 else self.n_predict
        if limit == 0:
            raise RequestError("n_predict: 0 tokens cannot be asked for here", parameter="n_predict")
        bias = _bias(llm, self.logit_bias)
        return self.drawing(max_tokens=limit, logprobs=self.n_probs or None, logit_bias=bias, **self.by_lines())


async def answer(llm: LLM, body: CompletionRequest, request: Request) -> Response:
    """Continue each prompt; an object for one, a list for a list."""
    params = body.params(llm)
    prompts, several = await run_in_threadpool(body.prompts, llm)  # long ones take a while
    streams: list[AsyncStream] = []
    try:
        for prompt in prompts:
            streams += await start(llm, prompt, params, 1)
    except BaseException:
        for stream in streams:
            await stream.aclose()
        raise

    def whole(index: int, done: Completion) -> Json:
        settings = {**_settings(params), "seed": done.seed}
        return {"index": index, **ending(llm, done), "generation_settings": settings}

    if body.stream:

        def each(index: int, chunk: Chunk) -> Iterable[Json]:
            yield {
                "index": index,
                "content": chunk.text,
                "tokens": chunk.token_ids,
                "stop": False,
                **_probabilities(llm, chunk.logprobs),
            }
            completion = streams[index].completion
            if completion is not None:
                yield body.chosen({**whole(index, completion), "content": "", "tokens": []})

        return choice_events(streams, (), each, lambda _: (), COMPLETION)
    found = [
        body.chosen(
            {
                **whole(index, completion),
                "tokens": completion.token_ids if body.return_tokens else [],
                **_probabilities(llm, completion.logprobs),
            }
        )
        for index, completion in enumerate(await whole_choices(streams, request))
    ]
    return JSONResponse(found if several else found[0])


def ending(llm: LLM, done: Completion) -> Json:
    """The whole answer, and what is told at its end."""
    usage, timings = done.usage, done.timings
    guessed = timings.guessed_tokens
    word = done.stop if isinstance(done.stop, str) else ""
    return {
        "content": done.text,
        "stop": True,
        "stop_type": "limit" if done.finish_reason == "length" else "word" if word else "eos",
        "stopping_word": word,
        "has_new_line": "\n" in done.text,
        "truncated": usage.dropped_tokens > 0,
        "model": llm.name,
        "tokens_predicted": usage.completion_tokens,
        "tokens_evaluated": usage.prompt_tokens,
        "tokens_cached": usage.cached_tokens,
        "timings": {
            "cache_n": usage.cached_tokens,
            **_timing(
                "prompt",
                usage.prompt_tokens - usage.cached_tokens,
                timings.prefill,
                timings.prefill_tokens_per_second,
            ),
            **_timing("predicted", usage.completion_tokens, timings.decode, timings.decode_tokens_per_second),
            **({"draft_n": guessed, "draft_n_accepted": timings.right_guesses} if guessed else {}),
        },
    }


def _timing(name: str, tokens: int, seconds: float, rate: float) -> Json:
    return {
        f"{name}_n": tokens,
        f"{name}_ms": 1000 * seconds,
        f"{name}_per_token_ms": 1000 / rate if rate else 0.0,
        f"{name}_per_second": rate,
    }


def _settings(params: SamplingParams) -> Json:
    """What was asked for, under llama.cpp's names."""
    return {
        "n_predict": -1 if params.max_tokens is None else params.max_tokens,
        "samplers": list(params.samplers),
        "temperature": params.temperature,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "stop": list(params.stop),
        "ignore_eos": params.ignore_eos,
        "n_probs": params.logprobs or 0,
    }


def _probabilities(llm: LLM, logprobs: Sequence[TokenLogprob] | None) -> Json:
    if logprobs is None:
        return {}

    def one(token: int, logprob: float) -> Json:
        raw = llm.tokenizer.token_bytes(token)
        return {"id": token, "token": raw.decode(errors="replace"), "bytes": list(raw), "logprob": logprob}

    return {
        "completion_probabilities": [
            {**one(choice.token, choice.logprob), "top_logprobs": [one(*pair) for pair in choice.top]}
            for choice in logprobs
        ]
    }


def _ids(llm: LLM, prompt: PromptString | str | Sequence[str | int]) -> list[int]:
    """One prompt; the begin token comes before a text that is first."""
    if isinstance(prompt, PromptString):
        prompt = prompt.prompt_string
    if isinstance(prompt, str):
        return llm.tokenize(prompt)
    ids: list[int] = []
    for place, piece in enumerate(prompt):
        ids += [piece] if isinstance(piece, int) else llm.tokenize(piece, add_special=place == 0)
    return ids


def _bias(llm: LLM, given: Any) -> dict[int, float]:
    """Biases by token, of pairs or an object; a text stands for each of its tokens, and false for -100."""
    found: dict[int, float] = {}
    for key, bias in [] if given is None else given.items() if isinstance(given, dict) else given:
        text = isinstance(key, str) and not key.isdecimal()
        for token in llm.tokenize(key, add_special=False) if text else [int(key)]:
            found[token] = -100.0 if bias is False else bias
    return found
