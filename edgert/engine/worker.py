"""The loop on the engine's thread: receive, plan, step, sample, answer."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

import numpy as np
from edgert_models.errors import BackendError, CancelledError, DeadlineError, EdgertError, EngineError
from edgert_runtimes.base import AheadSession, Drawn, Session, StoringSession, undrawn
from numpy.typing import NDArray

from edgert.engine.batch import draws_of, following_batch, make_batch
from edgert.engine.latency import Latencies
from edgert.engine.loan import Loan, serve
from edgert.engine.overflow import oldest
from edgert.engine.prefixes.exchange import Exchange
from edgert.engine.prefixes.shelf import Piece, Shelf
from edgert.engine.request import Ending, Event, Failed, Kind, Request, Rows, Token
from edgert.engine.scheduler import Part, Scheduler, Step
from edgert.engine.speculation import Speculation
from edgert.engine.watchdog import Watchdog

_log = logging.getLogger("edgert.engine")
_EVALUATED_LOGITS = 1 << 24  # logits of one step of an evaluation: 64 MiB
_FAILED_STEPS = 3  # in a row, after which the session is replaced
_PAUSE = 60.0  # seconds between two sessions that are replaced so
_LONGEST_DELAY = 10.0  # seconds between two attempts to open a session
STEP_TIMEOUT = 300.0  # seconds: no step should take so long, though its weights come from a slow disk
_LOOK = 0.05  # seconds after which deadlines are looked at while all wait for the disk


class Worker:
    """Everything that the engine's thread touches. Only `submit`, `cancel`, `stop` and the counts are for others.

    `reopen` gives another session in place of one that has failed, after it has been closed. `speculation` is not for
    models with recurrent states, which cannot take tokens back. `shelf` is where prefixes go that there is no room for,
    and all of them in the end; the session is a StoringSession then. A step that takes more than `step_timeout` seconds
    hangs: everybody is told so, and the session is replaced if the step ever comes back.
    """

    def __init__(
        self,
        session: Session,
        vocabulary: int,
        reopen: Callable[[], Session] | None = None,
        speculation: Speculation | None = None,
        shelf: Shelf | None = None,
        step_timeout: float = STEP_TIMEOUT,
        reach: int = 0,
    ) -> None:
        self._reach = reach
        self._vocabulary = vocabulary
        self.shelf = shelf
        self._exchange: Exchange | None = None
        self._adopt(session)
        self.waiting = self.requests = self.steps = self.restarts = 0
        self.prompt_tokens = self.cached_tokens = self.disk_tokens = self.generated_tokens = 0
        self.guessed_tokens = self.right_guesses = 0
        self._speculation = speculation
        self.latencies = Latencies()
        self._reopen = reopen
        self._failed_steps = 0  # in a row
        self._reopened_at = -math.inf  # because of them
        # (request, False): serve it; (request, True): cancel it; a loan: do its work; a piece: take it; None: stop.
        self._inbox: SimpleQueue[tuple[Request, bool] | Loan | Piece | None] = SimpleQueue()
        self._idle = False  # though busy: all wait for the disk
        # Of `waiting`, `_stopped` and `_down`, so that nothing enters the inbox after the None.
        self._lock = threading.Lock()
        self._stopped: EdgertError | None = None
        self._down: EngineError | None = None  # while there is no session
        self._stopping = threading.Event()
        self._alone: Request | None = None  # the request that has the running step to itself
        self._watchdog = Watchdog(step_timeout, self._tell_of_hanging)

    def submit(self, request: Request, queue_limit: int | None) -> bool:
        """Queue a request; false if `queue_limit` requests wait already. Raises what the engine was stopped with."""
        with self._lock:
            self._check_running()
            if queue_limit is not None and self.waiting >= queue_limit:
                return False
            self.waiting += 1
            self._inbox.put((request, False))
        return True

    def lend(self, loan: Loan) -> None:
        """Queue a loan. Raises what the engine was stopped with."""
        with self._lock:
            self._check_running()
            self._inbox.put(loan)

    def cancel(self, request: Request) -> None:
        """End a request before the next step, which comes at once where the running one is only for it."""
        self._inbox.put((request, True))
        if self._alone is request:
            self.session.interrupt()

    def stop(self, error: EdgertError) -> None:
        """End everything with `error`, and then the thread."""
        with self._lock:
            if self._stopped is None:
                self._stopped = error
                self._inbox.put(None)
                self._stopping.set()

    @property
    def available(self) -> bool:
        """Whether requests are taken now."""
        return self._stopped is None and self._down is None

    @property
    def hangs(self) -> bool:
        """Whether a step has been running for too long."""
        return self._watchdog.barked

    def run(self) -> None:
        """The thread."""
        try:
            while self._serve():
                pass
        finally:
            self._end_all(self._why_stopped)
            if self._exchange is not None:
                self._exchange.keep_everything()
            self.session.close()
            if self.shelf is not None:
                self.shelf.close()
            if self._speculation is not None:
                self._speculation.close()
            self._watchdog.close()

    def _serve(self) -> bool:
        """Work until stopped or failed; whether there is a new session to go on with."""
        try:
            while self._receive():
                with self._watchdog.watching():
                    self._advance()
        except Exception as error:
            # Not a failed step (those end their requests only): the bookkeeping itself cannot be trusted any more.
            _log.exception("the engine failed")
            return self._restart(f"{type(error).__name__}: {error}")
        return False

    def _restart(self, reason: str) -> bool:
        """Close the session and open another, as often as it takes; false once stopped. Requests end meanwhile."""
        self._exchange = None
        if self._reopen is None:
            self.stop(BackendError(f"the engine stopped: {reason}"))
            return False
        with self._lock:
            self._down = EngineError(f"the engine failed ({reason}) and is started again; try again")
        self._end_all(self._why_down)
        delay = 0.0
        while not self._stopping.wait(delay):
            delay = min(max(1.0, 2 * delay), _LONGEST_DELAY)
            try:
                self.session.close()
                self._adopt(self._reopen())
            except Exception:
                _log.exception("the engine cannot be started again; that is tried once more in %g s", delay)
                continue
            self.restarts += 1
            self._watchdog.calm()
            with self._lock:
                self._down = None
            return True
        return False

    def _tell_of_hanging(self, seconds: float) -> None:
        """On the watchdog's thread, while the engine's is in a step: nobody is to wait for that."""
        with self._lock:
            self._down = EngineError(f"a step of the model has not come back for {seconds:.3g} s; try again later")
        _log.error("%s", self._down)
        self.session.interrupt()
        came, stopped = self._drained(self._why_down)
        if stopped:
            self._inbox.put(None)
        for request in came:
            self._leave_queue(request)
        for request in (*self.scheduler.running, *self.scheduler.waiting, *came):
            if not request.ended:
                request.ended = True
                self._emit(request, Failed(self._why_down()))

    def _adopt(self, session: Session) -> None:
        self.session = session
        rows = max(1, _EVALUATED_LOGITS // self._vocabulary)
        self.scheduler = Scheduler(session.limits, rows, self.shelf, self._reach)
        self._ahead = session if isinstance(session, AheadSession) else None
        self._exchange = None
        if self.shelf is not None and isinstance(session, StoringSession):
            self._exchange = Exchange(self.shelf, session, self.scheduler)
        self._block_size = session.limits.block_size

    def _receive(self) -> bool:
        """Take in what has come, waiting for it when there is nothing to do; false once stopped."""
        wait = not self.scheduler.busy
        while True:
            try:
                item = self._inbox.get(wait or self._idle, None if wait else _LOOK)
            except Empty:
                return True
            self._idle = False
            if item is None:
                return False
            if isinstance(item, Loan):
                serve(item, self.session, self.scheduler, self._keep_evicted)
                continue
            if isinstance(item, Piece):
                if self._exchange is not None:
                    found = self._exchange.take(item)
                    self.cached_tokens += found
                    self.disk_tokens += found
                continue
            request, cancelled = item
            if not cancelled:
                self.scheduler.waiting.append(request)
            elif not request.ended:
                self._end(request, Failed(CancelledError("the request was cancelled")))
            wait = not self.scheduler.busy

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for request in [*self.scheduler.running, *self.scheduler.waiting]:
            if now >= request.deadline:
                seconds = request.deadline - request.submitted_at
                count = len(request.history) - request.prompt_tokens
                there = f"{count} tokens of the answer were there" if count else "the prompt was not computed yet"
                where = "it was waiting" if request.started_at is None else there
                self._end(request, Failed(DeadlineError(f"the request took longer than {seconds:.4g} s: {where}")))

    def _advance(self) -> None:
        self._end_overdue()
        if not self.scheduler.busy:
            return
        step = self.scheduler.plan()
        for request in self.scheduler.running:
            if request.started_at is None:
                self._leave_queue(request)
                request.cached_tokens = request.computed
                self.prompt_tokens += request.prompt_tokens
                self.cached_tokens += request.cached_tokens
                if request.kind is Kind.GENERATE:
                    self.latencies.note_start(request)
        self._idle = not step.parts
        for fetch in step.fetches:
            assert self.shelf is not None
            self.shelf.fetch(fetch, self._inbox.put)
        self._keep_evicted()
        try:
            if step.copies:
                self.session.copy_blocks(step.copies)
        except Exception as error:
            for part in step.parts:
                self._end(part.request, Failed(_typed(error)))
            self._note_failure(error)
            return
        if step.parts:
            self._compute(self._with_guesses(step))

    def _with_guesses(self, step: Step) -> list[Part]:
        """The parts of a step; where all are decoding, with guesses of what follows."""
        parts = step.parts
        decoding = not step.filling and all(part.request.kind is Kind.GENERATE for part in parts)
        if self._speculation is None or not decoding:
            return parts
        guesses = self._speculation.propose([part.request for part in parts], step.rows)
        found = []
        for part, guessed in zip(parts, guesses, strict=True):
            assert part.request.sampler is not None
            possible = part.request.sampler.possible(guessed) if guessed else guessed
            found.append(self.scheduler.with_guesses(part, possible) if possible else part)
        return found

    def _compute(self, parts: list[Part]) -> None:
        """Run parts as one batch; if that fails, each by itself, so that only those who are at fault end."""
        begin = time.monotonic()
        self._alone = parts[0].request if len(parts) == 1 else None
        try:
            out = self._step(parts)
        except CancelledError:
            return  # interrupted: whoever is not cancelled is planned again
        except Exception as error:
            if len(parts) > 1 or parts[0].guessed:
                for part in parts:
                    self._compute([Part(part.request, part.count - len(part.guessed))])
                return
            self._end(parts[0].request, Failed(_typed(error)))
            self._note_failure(error)
            return
        finally:
            self._alone = None
        self._watchdog.check()
        self._failed_steps = 0
        self.steps += 1
        seconds = time.monotonic() - begin
        self.scheduler.pace(sum(part.count for part in parts), seconds)
        if self._speculation is not None and all(part.count == 1 + len(part.guessed) for part in parts):
            self._speculation.note_step(len(parts), sum(len(part.guessed) for part in parts), seconds)
        row = 0
        for part in parts:
            if part.guessed:
                self._choose_along(part, out, row)
                row += part.count
                continue
            self.scheduler.done(part)
            request = part.request
            if request.kind is not Kind.GENERATE:
                self._collect(part, out.logits)
            elif not request.remaining:
                self._choose(request, out, row)
                row += 1

    def _note_failure(self, error: Exception) -> None:
        """A step has failed whoever had it. Several in a row are the session's fault: a device that was lost fails
        everything from then on. To try another costs little, but is not to be had by whoever makes steps fail.
        """
        self._failed_steps += 1
        now = time.monotonic()
        if self._failed_steps >= _FAILED_STEPS and self._reopen is not None and now - self._reopened_at > _PAUSE:
            self._failed_steps, self._reopened_at = 0, now
            raise error

    def _step(self, parts: Sequence[Part]) -> Drawn:
        """Run the session; where it can work ahead, and everyone goes on for all one can tell, say what comes next."""
        batch = make_batch(parts, self._block_size)
        if self._ahead is not None and len(parts) == len(self.scheduler.running) and not self.scheduler.waiting:
            draws = draws_of(parts)
            foreseen = len(draws) == len(parts) and self.scheduler.look_ahead(parts)
            following = following_batch(batch, parts, self._block_size) if foreseen else None
            if following is not None:
                self._keep_evicted()
                out = self._ahead.step_ahead(batch, draws, following)
                return out if isinstance(out, Drawn) else undrawn(out)
        self._keep_evicted()
        return undrawn(self.session.step(batch, hidden=parts[0].request.kind is Kind.HIDDEN))

    def _keep_evicted(self) -> None:
        """Before anything is written where it is."""
        if self._exchange is not None:
            self._exchange.keep_evicted()

    def _choose(self, request: Request, out: Drawn, row: int) -> None:
        """The token that the device drew after a row, or else the sampler's choice from the row's logits."""
        assert request.sampler is not None
        try:
            choice = request.sampler.accept(int(out.tokens[row]), len(request.history), out.among)
            if choice is None:
                choice = request.sampler.choose(out.logits[row, : self._vocabulary], request.history)
        except Exception as error:
            self._end(request, Failed(_typed(error)))
            return
        request.history.append(choice.token)
        if request.history is not request.tokens:
            request.tokens.append(choice.token)
        self.generated_tokens += 1
        now = time.monotonic()
        self.latencies.note_token(request, now)
        ending = None
        if choice.token in request.stop_ids:
            ending = Ending.STOP
        elif request.sampler.finished:
            ending = Ending.COMPLETE
        elif len(request.history) >= request.limit:
            ending = Ending.LENGTH
        event = Token(choice, now, ending)
        if ending:
            self._end(request, event)
        else:
            if len(request.tokens) >= self.session.limits.context:
                self._slide(request)
            self._emit(request, event)

    def _slide(self, request: Request) -> None:
        """Leave out what is old of a full context; the rest is computed again, before anything that waits."""
        self.scheduler.remove(request)
        begin, end = oldest(request.prompt_tokens, len(request.tokens))
        request.tokens = request.tokens[:begin] + request.tokens[end:]  # what was both stays the history
        request.dropped_tokens += end - begin
        self.scheduler.waiting.appendleft(request)

    def _choose_along(self, part: Part, out: Drawn, row: int) -> None:
        """Choose from the row of a request's last token, and from those of guesses as long as these were right."""
        request, guessed, right = part.request, len(part.guessed), 0
        request.guessed_tokens += guessed  # before the last event, whose receiver may look
        self.guessed_tokens += guessed
        for place, guess in enumerate((*part.guessed, None), row):
            self.scheduler.done(Part(request, 1))
            self._choose(request, out, place)
            if request.ended or request.tokens[-1] != guess:
                break
            right += 1
            request.right_guesses += 1
            self.right_guesses += 1
        if not request.ended:
            self.scheduler.drop_guesses(request)
            assert self._speculation is not None
            self._speculation.note_guesses(request, guessed, right)

    def _collect(self, part: Part, out: NDArray[np.float32]) -> None:
        """Keep the rows of an evaluation until all are there."""
        request = part.request
        if request.rows is None:
            request.rows = np.empty((len(request.tokens), out.shape[1]), dtype=np.float32)
        request.rows[request.computed - part.count : request.computed] = out
        if not request.remaining:
            self._end(request, Rows(request.rows))

    def _emit(self, request: Request, event: Event) -> None:
        try:
            request.on_event(event)
        except Exception:
            _log.exception("an event handler failed; its request is cancelled")
            if not request.ended:
                self._end(request, None)

    def _end(self, request: Request, event: Event | None) -> None:
        """Free what a request has, and only then tell: who has the last event finds the room given back."""
        self.scheduler.remove(request)
        request.ended = True
        if self._speculation is not None:
            self._speculation.forget(request)
        if request.started_at is None:
            self._leave_queue(request)
        if event is not None:
            self._emit(request, event)

    def _drained(self, why: Callable[[], EdgertError]) -> tuple[list[Request], bool]:
        """The requests that are still in the inbox, and whether it says to stop; loans end with `why`."""
        requests, stopped = list[Request](), False
        while True:
            try:
                item = self._inbox.get_nowait()
            except Empty:
                return requests, stopped
            stopped = stopped or item is None
            if isinstance(item, Loan):
                item.result.set_exception(why())
            elif isinstance(item, tuple) and not item[1]:
                requests.append(item[0])

    def _end_all(self, why: Callable[[], EdgertError]) -> None:
        """End what runs, what waits, and what is still in the inbox: nothing enters it any more."""
        came, _ = self._drained(why)
        for request in (*self.scheduler.running, *self.scheduler.waiting, *came):
            if request.fetch is not None:
                request.fetch.cancel()
            if self._speculation is not None:
                self._speculation.forget(request)
            if request.started_at is None:
                self._leave_queue(request)
            if request.ended:  # the watchdog has told of it
                continue
            request.ended = True
            self._emit(request, Failed(why()))

    def _check_running(self) -> None:
        if self._stopped is not None:
            raise self._why_stopped()
        if self._down is not None:
            raise self._why_down()

    def _why_down(self) -> EngineError:
        assert self._down is not None
        return EngineError(*self._down.args)

    def _why_stopped(self) -> EdgertError:
        """A fresh copy of the error: one that is raised twice would collect tracebacks."""
        assert self._stopped is not None
        return type(self._stopped)(*self._stopped.args)

    def _leave_queue(self, request: Request) -> None:
        request.started_at = time.monotonic()
        self.requests += 1
        with self._lock:
            self.waiting -= 1


def _typed(error: Exception) -> EdgertError:
    """The error as one of the tree."""
    if isinstance(error, EdgertError):
        return error
    typed = BackendError(f"the step failed: {type(error).__name__}: {error}")
    typed.__cause__ = error
    return typed
