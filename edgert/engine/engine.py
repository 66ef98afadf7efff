"""The engine: one thread that owns a session and serves requests from any thread."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TypeVar

import numpy as np
from edgert_models.errors import BackendError, CancelledError, ContextLengthError, QueueFullError, RequestError
from edgert_runtimes.base import OpTime, Session
from edgert_runtimes.experts import CountingSession
from numpy.typing import NDArray

from edgert.engine.latency import Latencies
from edgert.engine.loan import Loan, Room
from edgert.engine.overflow import room_for_prompt, without_middle
from edgert.engine.params import FALLBACKS, SamplingParams
from edgert.engine.prefixes.shelf import Shelf
from edgert.engine.request import Kind, OnEvent, Request
from edgert.engine.sampling import Breakers, Constraint, Sampler
from edgert.engine.speculation import Speculation
from edgert.engine.worker import STEP_TIMEOUT, Worker

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Statistics:
    """A glance at the engine: what is there now, and what has been done since it started."""

    running: int
    waiting: int
    blocks: int
    blocks_held: int
    blocks_cached: int  # free to be given away, but findable by prompts that begin alike
    window_blocks: int  # the same of layers with a window, where these have blocks of their own
    window_blocks_held: int
    window_blocks_cached: int
    requests: int
    prompt_tokens: int
    cached_tokens: int  # of the prompt tokens, those found in the prefix cache
    disk_tokens: int  # of the cached tokens, those found on disk
    disk_bytes: int  # of all prefixes that are there, other models' too
    disk_writes: int  # of blocks and of recurrent states
    disk_damaged: int  # files that were not what their names say, and were deleted
    generated_tokens: int
    guessed_tokens: int  # by speculation
    right_guesses: int  # that became tokens of answers
    steps: int
    preemptions: int
    restarts: int  # of the engine, after it had failed


@dataclass(frozen=True, slots=True)
class Running:
    """A request that the engine is at: its tokens, and how many of them have gone through the model."""

    prompt_tokens: int
    cached_tokens: int
    disk_tokens: int  # of the cached tokens
    computed_tokens: int
    generated_tokens: int
    seconds: float  # since it was submitted


class Engine:
    """Runs requests for tokens (`submit`) and evaluations (`evaluate`) on a session, which it owns and closes.

    Any thread may call; results come as events to a callback on the engine's thread. Token ids are below
    `vocabulary`; where the logits have more columns, these are padding that is never chosen. `end_ids` are the model's
    own end tokens, `defaults` its recommended sampling (see `FALLBACKS`), `seed` is for requests that name none.
    `queue_limit` bounds the requests that wait, `timeout` the seconds of each, `overflow` is what is done with too many
    tokens where a request does not say. `reopen` gives another session like the first: an engine that has it and fails
    ends its requests with EngineError, and goes on with a new session. `speculation` guesses tokens; models with
    recurrent states, which cannot take any back, do without. `shelf` keeps prefixes on disk, for a session that is a
    StoringSession. `reach` is the plan's: layers with a window may have blocks of their own. A step that does not come
    back for `step_timeout` seconds hangs: all requests end with an EngineError, others get it until the step comes back
    after all and the session has been replaced. An engine that is dropped without `close` closes itself; one that hangs
    is left alone.
    """

    def __init__(
        self,
        session: Session,
        *,
        vocabulary: int,
        end_ids: Collection[int] = (),
        defaults: Mapping[str, float] = FALLBACKS,
        seed: int | None = None,
        queue_limit: int | None = None,
        timeout: float | None = None,
        overflow: str = "error",
        reopen: Callable[[], Session] | None = None,
        speculation: Speculation | None = None,
        shelf: Shelf | None = None,
        step_timeout: float = STEP_TIMEOUT,
        reach: int = 0,
    ) -> None:
        self._vocabulary = vocabulary
        self._end_ids = frozenset(token for token in end_ids if token < vocabulary)
        self._defaults = defaults
        self._seed = seed
        self._queue_limit = queue_limit
        self._timeout = timeout
        self._overflow = overflow
        self._context = session.limits.context
        self._process = os.getpid()
        guesses = None if session.limits.states else speculation
        self._worker = Worker(session, vocabulary, reopen, guesses, shelf, step_timeout, reach)
        self._thread = threading.Thread(target=self._worker.run, name="edgert-engine", daemon=True)
        self._thread.start()
        # Not a method of self, which would keep self alive; runs at exit too.
        self._finalizer = weakref.finalize(self, _shut_down, self._worker, self._thread, self._process)

    def submit(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        on_event: OnEvent,
        breakers: Breakers | None = None,
        constraint: Constraint | None = None,
        adapter: int = -1,
        pieces: Sequence[bytes] | None = None,
    ) -> Request:
        """Continue `prompt`: a Token event for each token, the last with its `ending`, or Failed.

        `breakers` are `params.dry_sequence_breakers` as found in the tokens, whose texts are not known here;
        `constraint`, for this request alone, is what `params.structured_outputs` come to; `adapter` is the number of
        the one that it goes through, -1 for none; `pieces` are the bytes of every token, for the sampler "infill".
        Raises RequestError for ids outside the vocabulary or an empty prompt, ContextLengthError where prompt and
        max_tokens do not fit the context, QueueFullError, and CancelledError once the engine is closed.
        """
        tokens, dropped = self._fitting(self._checked(prompt), params)
        sampler = Sampler(
            params,
            vocabulary=self._vocabulary,
            end_ids=self._end_ids,
            defaults=self._defaults,
            seed=self._seed,
            prompt=len(tokens),
            breakers=breakers,
            constraint=constraint,
            pieces=pieces,
        )
        request = self._request(Kind.GENERATE, tokens, on_event)
        request.adapter = adapter
        request.sampler, request.seed = sampler, sampler.seed
        request.stop_ids = self._end_ids.union(params.stop_token_ids)
        request.limit = self._context if params.max_tokens is None else len(tokens) + params.max_tokens
        request.slides = (params.overflow or self._overflow) == "sliding"
        request.dropped_tokens = dropped
        return self._start(request, params.timeout)

    def evaluate(self, tokens: Sequence[int], on_event: OnEvent, *, hidden: bool = False, adapter: int = -1) -> Request:
        """One Rows event with the logits (or the last hidden values) of every token, or Failed.

        The prefix cache is neither read nor written. Errors as in `submit`.
        """
        ids = self._checked(tokens)
        if len(ids) > self._context:
            reason = f"{len(ids)} tokens do not fit the context of {self._context}"
            raise ContextLengthError(reason, tokens=len(ids), limit=self._context, parameter="prompt")
        request = self._request(Kind.HIDDEN if hidden else Kind.LOGITS, ids, on_event)
        request.adapter = adapter
        return self._start(request)

    def borrow(self, blocks: int, work: Callable[[Session, Room], T]) -> T:
        """What `work(session, room)` returns or raises. It runs on the engine's thread, between two steps, so that it
        may call the session; of its memory only the room it is given is its own, and only until it returns.

        Requests wait meanwhile. RequestError where fewer blocks are free.
        """
        self._check_process()
        loan = Loan(blocks, work)
        self._worker.lend(loan)
        try:
            return loan.result.result()  # type: ignore[no-any-return]
        except BaseException:
            while not loan.result.done():  # an interrupt came from the keyboard; the work may be between two steps
                self._worker.session.interrupt()
                time.sleep(0.01)
            raise

    def profile(self, on: bool) -> list[OpTime]:
        """See Session."""
        return self._worker.session.profile(on)

    def statistics(self) -> Statistics:
        """A glance at the engine; cheap, from any thread."""
        worker, shelf = self._worker, self._worker.shelf
        pool, windows = worker.scheduler.pool, worker.scheduler.windows
        return Statistics(
            running=len(worker.scheduler.running),
            waiting=worker.waiting,
            blocks=pool.size,
            blocks_held=pool.held,
            blocks_cached=pool.cached,
            window_blocks=windows.size,
            window_blocks_held=windows.held,
            window_blocks_cached=windows.cached,
            requests=worker.requests,
            prompt_tokens=worker.prompt_tokens,
            cached_tokens=worker.cached_tokens,
            disk_tokens=worker.disk_tokens,
            disk_bytes=0 if shelf is None else shelf.store.size,
            disk_writes=0 if shelf is None else shelf.written,
            disk_damaged=0 if shelf is None else shelf.store.damaged,
            generated_tokens=worker.generated_tokens,
            guessed_tokens=worker.guessed_tokens,
            right_guesses=worker.right_guesses,
            steps=worker.steps,
            preemptions=worker.scheduler.preemptions,
            restarts=worker.restarts,
        )

    @property
    def available(self) -> bool:
        """Whether requests are taken now: not once closed, not while a step hangs or a failed session is replaced."""
        return self._worker.available

    @property
    def hangs(self) -> bool:
        """Whether a step has not come back in time, and its session not been replaced yet."""
        return self._worker.hangs

    def running(self) -> list[Running]:
        """What the engine is at, in order of admission; cheap, from any thread."""
        now = time.monotonic()
        return [
            Running(
                prompt_tokens=request.prompt_tokens,
                cached_tokens=request.cached_tokens,
                disk_tokens=request.disk_tokens,
                computed_tokens=request.computed,
                generated_tokens=len(request.history) - request.prompt_tokens,
                seconds=now - request.submitted_at,
            )
            for request in list(self._worker.scheduler.running)
        ]

    def expert_load(self) -> NDArray[np.int64] | None:
        """See CountingSession; None where the backend does not count. Cheap, from any thread."""
        return self._worker.session.expert_load() if isinstance(self._worker.session, CountingSession) else None

    @property
    def latencies(self) -> Latencies:
        """How long requests have waited so far, live."""
        return self._worker.latencies

    def close(self) -> None:
        """End every request with CancelledError, close the session and wait for the thread; twice is fine."""
        self._finalizer()

    def _checked(self, tokens: Sequence[int]) -> list[int]:
        ids = list(tokens)
        if set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) < self._vocabulary:
            return ids
        ids.clear()
        for place, token in enumerate(tokens):  # which is it, or are they integers of another kind?
            if isinstance(token, bool) or not isinstance(token, Integral):
                reason = f"token {place} of the prompt is {token!r:.40}, not an integer"
                raise RequestError(reason, parameter="prompt")
            if not 0 <= token < self._vocabulary:
                reason = f"token {place} of the prompt is {token}, outside the vocabulary of {self._vocabulary}"
                raise RequestError(reason, parameter="prompt")
            ids.append(int(token))
        if not ids:
            raise RequestError("the prompt has no tokens", parameter="prompt")
        return ids

    def _request(self, kind: Kind, tokens: list[int], on_event: OnEvent) -> Request:
        return Request(kind, tokens, len(tokens), on_event, self._worker.cancel)

    def _fitting(self, tokens: list[int], params: SamplingParams) -> tuple[list[int], int]:
        """A prompt as long as it may be, and how many tokens of it were left out."""
        policy = params.overflow or self._overflow
        room = room_for_prompt(policy, params.max_tokens, self._context)
        if len(tokens) <= room:
            return tokens, 0
        if policy != "error" and room > 0:
            return without_middle(tokens, room), len(tokens) - room
        asked = 1 if params.max_tokens is None else params.max_tokens
        reason = f"the prompt has {len(tokens)} token{'s' if len(tokens) > 1 else ''}" + (
            ", which leaves no room for an answer"
            if params.max_tokens is None or len(tokens) >= self._context
            else f" and max_tokens is {asked}"
        )
        raise ContextLengthError(
            f"{reason}; the context holds {self._context}",
            tokens=len(tokens) + asked,
            limit=self._context,
            parameter="prompt" if len(tokens) >= self._context else "max_tokens",
        )

    def _start(self, request: Request, timeout: float | None = None) -> Request:
        self._check_process()
        request.submitted_at = time.monotonic()
        limits = [seconds for seconds in (timeout, self._timeout) if seconds is not None]
        if limits:
            request.deadline = request.submitted_at + min(limits)
        if not self._worker.submit(request, self._queue_limit):
            raise QueueFullError(f"{self._queue_limit} requests are waiting already; try again later")
        return request

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise BackendError(
                "the model was loaded before this process was forked, and its threads did not come along; "
                "load it in this process, or start processes with multiprocessing's 'spawn'"
            )


def _shut_down(worker: Worker, thread: threading.Thread, process: int) -> None:
    if os.getpid() != process:
        return  # the thread stayed in the parent
    worker.stop(CancelledError("the model was closed"))
    if thread is not threading.current_thread():
        while thread.is_alive() and not worker.hangs:
            thread.join(1.0)
