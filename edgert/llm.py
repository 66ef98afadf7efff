"""The embedded API: a model in this process."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import numpy as np
from edgert_models import build_plan
from edgert_models.errors import RequestError, UnsupportedError
from edgert_runtimes.base import OpTime, Progress, Session, WeightProvider
from edgert_runtimes.experts import layer_of, mixtures_of
from edgert_runtimes.registry import get_backend
from edgert_runtimes.weights import GgufWeights, JoinedWeights, check_weights, weight_bytes_per_token
from numpy.typing import NDArray

from edgert import gathering
from edgert.adapters import Source, load_adapters
from edgert.answer import Answer, AsyncStream, Start, Stream
from edgert.capacity import DEFAULT_ROWS, DEFAULT_SEQUENCES, choose_limits, first_that_fits
from edgert.chat import ChatPrompt, Message, ToolChoice
from edgert.completion import Completion
from edgert.drafting import Drafting, Speculate, check_speculate, open_drafting
from edgert.engine.engine import Engine, Running, Statistics
from edgert.engine.latency import Latencies
from edgert.engine.loan import Room
from edgert.engine.overflow import Overflow
from edgert.engine.params import SamplingParams
from edgert.engine.request import Request
from edgert.engine.worker import STEP_TIMEOUT
from edgert.given import is_one, params_of, params_of_each, reader_of, with_form
from edgert.opened import Opened, Prompt
from edgert.prefix_disk import open_shelf
from edgert.resolve import resolve_model
from edgert.text import Tokenizer

T = TypeVar("T")


class LLM:
    """A model, ready to answer. Any thread may call it; requests that come together share its steps.

    `model` is a GGUF file, `org/name[:QUANTIZATION]` of the Hugging Face hub (fetched unless it is in the cache, see
    `edgert.hub`), or None for the bundled demo model. `backend` is "auto", "cpu",
    "cuda", "mlx" or "reference". `threads` None: all cores. `context` is the most tokens of a prompt and its answer;
    None: 4096, or the model's if that is less (with the rope scaling longrope: what it was first trained on, since
    positions turn otherwise in longer contexts). `memory` bounds the bytes taken beside the file's own pages (the cache
    shrinks to fit, down to one context), with "cuda" those of the GPU's memory, whose experts that do not fit stay in
    the host's; MemoryBudgetError tells what it would need. `kv_type` is the cache's type: "f32", "f16", "bf16", "q8_0",
    "q4_0", or "auto" for f32 where the weights are floats and f16 elsewhere. `seed` is for requests that name none.
    `sequences` is how many answers are computed at once, `rows` how many tokens go through the model in one step at
    most, `queue_limit` how many requests may wait (None: any number). `timeout` is the seconds a request may take, and
    `overflow` what becomes of more tokens than the context holds, where its params do not say. `chat_template` is a
    Jinja file to use instead of the model's own template. `adapters` are LoRA adapters by name, for `adapted`: GGUF
    files or folders of PEFT, or pairs of these and a scale. `speculate` says who guesses tokens, which changes how long
    an answer takes, and nothing in it: "lookup" (what followed the last tokens when they came before), "draft" (the
    model `draft`, a file or hub id with the same tokens), "off", or "auto": the draft model if there is one, else
    lookup where logits do not depend on it to the bit ("cpu", "reference") and weights are 100 MB or more; and only
    while it pays. `prefix_disk` is how many bytes of prefixes may be kept in files, of all models together (None: none
    are): what the cache has no room for, and what it has when the model is closed, is found there by later prompts.
    A step that takes more than `step_timeout` seconds hangs: requests end with EngineError, see `hangs`.
    `progress(stage, done, total)` is told about fetching, compiling and loading.

    Close it, use it in a `with`, or drop it: its memory and threads are given back.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        backend: str = "auto",
        threads: int | None = None,
        context: int | None = None,
        memory: int | None = None,
        kv_type: str = "auto",
        seed: int | None = None,
        sequences: int = DEFAULT_SEQUENCES,
        rows: int = DEFAULT_ROWS,
        queue_limit: int | None = None,
        timeout: float | None = None,
        overflow: Overflow = "error",
        chat_template: str | Path | None = None,
        adapters: Mapping[str, Source] | None = None,
        speculate: Speculate = "auto",
        draft: str | Path | None = None,
        prefix_disk: int | None = None,
        step_timeout: float = STEP_TIMEOUT,
        progress: Progress | None = None,
    ) -> None:
        if queue_limit is not None and (not isinstance(queue_limit, int) or queue_limit < 0):
            raise RequestError(f"queue_limit must be an integer from 0, not {queue_limit!r}", parameter="queue_limit")
        self.queue_limit = queue_limit
        if not 0 < step_timeout < math.inf:
            reason = f"step_timeout is a number of seconds above 0, not {step_timeout!r}"
            raise RequestError(reason, parameter="step_timeout")
        self.seed = SamplingParams(seed=seed, timeout=timeout, overflow=overflow).seed  # checked
        check_speculate(speculate, draft)
        self.path = resolve_model(model, progress=progress)
        runtime = get_backend(backend)
        self._opened = opened = Opened(self.path, chat_template)
        try:
            self.spec, self.metadata = opened.spec, opened.file.metadata
            self.name = self.spec.name or self.path.stem
            self.parameters, self.vocabulary = opened.parameters, opened.vocabulary
            plan = build_plan(self.spec)
            weights: WeightProvider = GgufWeights(opened.file)
            check_weights(plan, weights, str(self.path))
            loaded = load_adapters(adapters or {}, plan)
            weights = JoinedWeights(weights, loaded.weights) if loaded.names else weights
            self.adapters = loaded.names
            self._adapter = -1
            self._base: LLM | None = None  # which an adapted one keeps open
            limits = choose_limits(
                plan,
                weights,
                context=context,
                sequences=sequences,
                rows=rows,
                kv_type=kv_type,
                threads=threads,
                memory=memory,
            )
            self.context = limits[0].context
            plan = build_plan(self.spec, self.context, loaded.plan)
            self._mixtures = {layer_of(op): op.experts for op in mixtures_of(plan).values()}
            self.weight_bytes_per_token = weight_bytes_per_token(plan, weights)
            session = first_that_fits(limits, lambda chosen: runtime.load(plan, weights, chosen, progress))
            self.report, self.limits = session.report, session.limits
            shelf = None
            try:
                if prefix_disk is not None:
                    shelf = open_shelf(prefix_disk, opened.file, plan, session, loaded, progress)
                drafting = open_drafting(
                    speculate,
                    draft,
                    tokenizer=opened.tokenizer,
                    vocabulary=self.vocabulary,
                    session=session,
                    runtime=runtime,
                    progress=progress,
                )
            except BaseException:
                session.close()
                if shelf is not None:
                    shelf.close()
                raise
            self._engine = Engine(
                session,
                vocabulary=self.vocabulary,
                end_ids=opened.end_ids,
                defaults=opened.recommended,
                seed=seed,
                queue_limit=queue_limit,
                timeout=timeout,
                overflow=overflow,
                reopen=partial(runtime.load, plan, weights, session.limits),
                speculation=drafting.speculation,
                shelf=shelf,
                step_timeout=step_timeout,
                reach=plan.reach,
            )
        except BaseException:
            opened.close()
            raise
        # Not a method of self, which would keep self alive.
        self._finalizer = weakref.finalize(self, _give_back, self._engine, drafting, opened)

    def adapted(self, name: str) -> Self:
        """This model with one of its `adapters`: all that is asked of it goes through that. It shares everything with
        this one, steps too; to close either closes both. RequestError lists the adapters where it is none of them.
        """
        if name not in self.adapters:
            has = f"it has {', '.join(self.adapters)}" if self.adapters else "it has none"
            raise RequestError(f"the model {self.name!r} has no adapter {name!r}; {has}", parameter="adapter")
        found = copy(self)
        found._adapter = self.adapters.index(name)
        found.name = f"{self.name}:{name}"
        found.adapters = ()
        found._base = self
        return found

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; UnsupportedError if the file has none."""
        return self._opened.need_tokenizer()

    @property
    def has_chat_template(self) -> bool:
        """Whether `chat` works."""
        return self._opened.chat is not None

    @property
    def reasons(self) -> bool:
        """Whether the model may write reasoning before its answer that `chat` can tell from it."""
        return self._opened.chat is not None and self._opened.chat.reasons

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of `text`, with the begin token where the model wants one (`add_special`)."""
        return self.tokenizer.encode(text, add_special=add_special)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids, control tokens by name."""
        return self.tokenizer.decode(ids)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Message] | None = None,
        add_generation_prompt: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt that the model's chat template makes of messages in OpenAI's form.

        `add_generation_prompt`: with the beginning of the answer. `chat_template_kwargs` are variables of the template
        (`{"enable_thinking": False}`). UnsupportedError if the file has no template, RequestError naming the part of
        `messages` that is malformed, TemplateError if the template fails.
        """
        return self._opened.need_chat().render(
            messages, tools, chat_template_kwargs, add_generation_prompt=add_generation_prompt
        )

    def chat_prompt(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Message] | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> ChatPrompt:
        """Messages as a prompt for `generate`, `stream` and `astream`, which read the answer as `chat` does."""
        return self._opened.need_chat().prompt(
            messages, tools, chat_template_kwargs, parallel=parallel_tool_calls, tool_choice=tool_choice
        )

    def reasoning_variables(self, on: bool) -> dict[str, bool]:
        """What to give as `chat_template_kwargs` so that the model reasons before it answers, or does not; RequestError
        where it cannot be chosen.
        """
        return self._opened.need_chat().reasoning_variables(on)

    @property
    def infills(self) -> bool:
        """Whether `infill_prompt` works."""
        return self._opened.infill is not None

    def infill_prompt(self, before: str, after: str, *, files: Sequence[tuple[str, str]] = ()) -> list[int]:
        """What to `generate` from for the text between two others; `files` are others of the project, as (name, text).

        UnsupportedError where the model was not trained for it: its vocabulary then lacks the tokens.
        """
        if self._opened.infill is None:
            reason = f"the model {self.name!r} has no tokens for filling in (such as <|fim_prefix|>); give it a prompt"
            raise UnsupportedError(reason)
        return self._opened.infill.prompt(before, after, files)

    def chat_tokens(self, messages: Sequence[Message], *, tools: Sequence[Message] | None = None) -> list[int]:
        """Token ids of the rendered messages. Nothing is added: the template says where the begin token goes."""
        return self.chat_prompt(messages, tools=tools).token_ids

    @overload
    def generate(self, prompt: Prompt, params: SamplingParams | None = None) -> Completion: ...  # type: ignore[overload-overlap]

    @overload
    def generate(
        self, prompt: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> Completion | list[Completion]:
        """Continue a prompt (text, token ids, or a ChatPrompt), or several at once, each with its own `params` or all
        with the same.

        Raises RequestError for prompts that are empty or not of this model, ContextLengthError for those that do not
        fit; nothing is ever cut to fit. Where several are given, the first error ends all.
        """
        if is_one(prompt):
            return self._answers([prompt], [params_of(params)])[0]  # type: ignore[list-item]
        prompts: list[Prompt] = list(prompt)  # type: ignore[arg-type]
        if not prompts:
            raise RequestError("the prompt is empty: it has neither text nor tokens", parameter="prompt")
        return self._answers(prompts, params_of_each(params, len(prompts)))

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Stream:
        """As `generate` for one prompt, piece by piece. The request begins now; to close or drop the stream ends it."""
        chosen = params_of(params)
        return Stream(self._starter(prompt, chosen), chosen, self._opened.tokenizer, reader_of(prompt))

    def astream(self, prompt: Prompt, params: SamplingParams | None = None) -> AsyncStream:
        """As `stream`, for the running event loop, which it never blocks, but to compile a form for the first time: see
        `prepare`.
        """
        chosen = params_of(params)
        return AsyncStream(self._starter(prompt, chosen), chosen, self._opened.tokenizer, reader_of(prompt))

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Message] | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Answer messages in OpenAI's form (`role`, `content`) through the model's chat template.

        `tools`, in OpenAI's form too, may be called: the Completion's `tool_calls`, one at most without
        `parallel_tool_calls`. With `tool_choice` "required", or one that names a function, the answer is calls, whose
        arguments are what the tools' schemas say; with "auto" those of `strict` tools are. What a model of reasoning
        writes before its answer is the Completion's `reasoning`. `chat_template_kwargs` are variables of the template.
        `response_format` as OpenAI has it is another way to give `structured_outputs`.
        """
        params = with_form(params, response_format)
        prompt = self.chat_prompt(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            chat_template_kwargs=chat_template_kwargs,
        )
        return self.generate(prompt, params)

    def stream_chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Message] | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
    ) -> Stream:
        """As `chat`, piece by piece; see `stream`."""
        params = with_form(params, response_format)
        prompt = self.chat_prompt(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            chat_template_kwargs=chat_template_kwargs,
        )
        return self.stream(prompt, params)

    def prepare(self, prompt: Prompt, params: SamplingParams) -> None:
        """Compile the form that an answer has to have, so that a request for it begins at once. RequestError names what
        in it is not supported; a form that takes more than a second to compile is refused.
        """
        self._opened.constraint(prompt, params)

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits after each token, float32 [len(ids), vocabulary], computed afresh in one prefill."""
        return gathering.rows([self._evaluation(list(ids), hidden=False)])[0]

    def embed(self, texts: str | Sequence[Prompt]) -> NDArray[np.float32]:
        """An embedding for each text (or token ids), float32 [len(texts), width], of length 1.

        Of the last normalised hidden values the mean over all tokens, or those of the last token where the file says
        so (`pooling_type`). A model that was not trained for it is good enough to find similar texts, and no match for
        an embedding model.
        """
        each: Sequence[Any] = [texts] if is_one(texts) else texts
        rows = gathering.rows([self._evaluation(self._opened.ids(text)) for text in each])
        return np.array([self._opened.pool(row) for row in rows], np.float32).reshape(len(rows), self.spec.width)

    async def aembed(self, text: Prompt) -> NDArray[np.float32]:
        """As `embed` for one text, float32 [width], for the running event loop; to cancel it ends the request."""
        return self._opened.pool(await gathering.rows_of(self._evaluation(self._opened.ids(text))))

    def rank(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """How well each document answers a query, float32 [documents]: probabilities, or scores of any size, as the
        model was trained. UnsupportedError where it was not trained for that.
        """
        ranker = self._opened.ranker()
        rows = gathering.rows([self._evaluation(ranker.prompt(query, document)) for document in documents])
        return np.array([ranker.score(row) for row in rows], np.float32)

    async def arank(self, query: str, document: str) -> tuple[float, int]:
        """As `rank` for one document, for the running event loop; also how many tokens it took."""
        ranker = self._opened.ranker()
        ids = ranker.prompt(query, document)
        return ranker.score(await gathering.rows_of(self._evaluation(ids))), len(ids)

    def statistics(self) -> Statistics:
        """What the engine is doing and has done."""
        return self._engine.statistics()

    @property
    def available(self) -> bool:
        """Whether requests are taken now: not once closed, and not while an engine hangs or is started again."""
        return self._engine.available

    @property
    def hangs(self) -> bool:
        """Whether a step has not come back in `step_timeout`. If it does after all the engine is started again; if it
        does not, only another process helps.
        """
        return self._engine.hangs

    def running(self) -> list[Running]:
        """The requests that the engine is at."""
        return self._engine.running()

    def expert_load(self) -> dict[int, NDArray[np.int64]] | None:
        """How many tokens each expert has had since the model was loaded, int64 [experts], by layer (layers without
        experts are not there); None where the backend does not count them.
        """
        counts = self._engine.expert_load()
        if counts is None:
            return None
        return {layer: row[:experts] for (layer, experts), row in zip(self._mixtures.items(), counts, strict=True)}

    @property
    def latencies(self) -> Latencies:
        """How long requests have waited, as histograms that go on counting."""
        return self._engine.latencies

    @contextmanager
    def profile(self) -> Iterator[list[OpTime]]:
        """Measure where the time of steps goes: the list is filled when the `with` ends, what took longest first."""
        times: list[OpTime] = []
        self._engine.profile(True)
        try:
            yield times
        finally:
            times += self._engine.profile(False)

    def borrow(self, blocks: int, work: Callable[[Session, Room], T]) -> T:
        """Let `work(session, room)` use the runtime's session directly, with so many blocks of the cache, on the
        engine's thread; what it returns or raises. For measuring: see `edgert.measure`.
        """
        return self._engine.borrow(blocks, work)

    def close(self) -> None:
        """End every request with CancelledError and give everything back; twice is fine."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _starter(self, prompt: Prompt, params: SamplingParams) -> Start:
        opened = self._opened
        ids = opened.ids(prompt)
        if params.stop and opened.tokenizer is None:
            raise UnsupportedError(f"{self.path} has no tokenizer, so stop texts cannot be found")
        breakers, constraint, pieces = opened.breakers(params), opened.constraint(prompt, params), opened.pieces(params)
        return lambda on_event: self._engine.submit(ids, params, on_event, breakers, constraint, self._adapter, pieces)

    def _evaluation(self, ids: Sequence[int], *, hidden: bool = True) -> Start:
        return lambda on_event: self._engine.evaluate(ids, on_event, hidden=hidden, adapter=self._adapter)

    def _answers(self, prompts: Sequence[Prompt], params: Sequence[SamplingParams]) -> list[Completion]:
        def read(index: int, request: Request) -> Answer:
            return Answer(request, params[index], self._opened.tokenizer, reader_of(prompts[index]))

        starts = [self._starter(prompt, chosen) for prompt, chosen in zip(prompts, params, strict=True)]
        return [answer.completion() for answer in gathering.answers(starts, read)]


def _give_back(engine: Engine, drafting: Drafting, opened: Opened) -> None:
    engine.close()
    if engine.hangs:
        return  # in the midst of what would be given back
    drafting.close()
    opened.close()
