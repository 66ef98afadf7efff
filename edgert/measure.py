"""Measuring a model's speed: the code behind `edgert bench`.

Prefill and decode are measured on the runtime's session, step by step: batches are made as the engine makes them, and
nothing is sampled. First tokens and answers are measured through `LLM.generate`, greedily: what they take longer is
what scheduling, sampling and text cost. Tokens are drawn anew for every run, so that no prefix is found in the cache,
and a step that does not count comes before each measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
from edgert_models import spec_from_gguf
from edgert_models.errors import ContextLengthError, RequestError
from edgert_quant.gguf import GgufFile
from edgert_runtimes.base import OpTime, Session
from edgert_runtimes.batches import blocks_seen

from edgert.engine.batch import make_batch
from edgert.engine.blocks import Table
from edgert.engine.loan import Room
from edgert.engine.params import SamplingParams
from edgert.engine.request import Kind, Request
from edgert.engine.scheduler import Part
from edgert.engine.states import States
from edgert.engine.windows import Window
from edgert.llm import LLM

T = TypeVar("T")


class Phase(Enum):
    """What is measured; the value is how its name begins."""

    PREFILL = "pp"  # a prompt, on the session
    DECODE = "tg"  # tokens one after another, on the session
    FIRST_TOKEN = "ttft"  # a prompt and the token after it, through the LLM
    ANSWER = "llm-tg"  # tokens one after another, through the LLM


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One thing to measure: `tokens` after `depth` tokens of context, of `batch` sequences at once."""

    phase: Phase
    tokens: int
    depth: int = 0
    batch: int = 1

    @property
    def name(self) -> str:
        """As llama-bench writes it: "pp512", "tg128@d4096", "tg128×8"."""
        depth = f"@d{self.depth}" if self.depth else ""
        return f"{self.phase.value}{self.tokens}{depth}" + (f"×{self.batch}" if self.batch > 1 else "")

    @property
    def context(self) -> int:
        """Positions that a sequence needs. An answer starts from a prompt, and its first token does not count."""
        return self.depth + self.tokens + {Phase.ANSWER: 2, Phase.FIRST_TOKEN: 1}.get(self.phase, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A trial's runs, in seconds each for `tokens` tokens of all sequences together."""

    trial: Trial
    threads: int
    seconds: tuple[float, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """Tokens per second of each run."""
        return tuple(self.trial.tokens * self.trial.batch / seconds for seconds in self.seconds)

    @property
    def rate(self) -> float:
        """The median of the runs, in tokens per second."""
        return median(self.rates)

    @property
    def seconds_per_token(self) -> float:
        """The median of the runs, for a token of each sequence."""
        return median(self.seconds) / self.trial.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseProfile:
    """Where the time of one run went; what is not in `ops` went outside of compiled code."""

    trial: Trial
    threads: int
    seconds: float
    ops: tuple[OpTime, ...]

    @property
    def unaccounted(self) -> float:
        """Seconds outside of ops: making batches, calling the runtime, taking logits back."""
        return self.seconds - sum(op.seconds for op in self.ops)


def trials(
    phases: Iterable[Phase],
    *,
    prompts: Iterable[int] = (512,),
    decodes: Iterable[int] = (128,),
    depths: Iterable[int] = (0,),
    batches: Iterable[int] = (1,),
) -> list[Trial]:
    """All combinations: prompts and decodes at every depth, decodes in every batch. First tokens are those of prompts
    with nothing before; answers of several sequences are measured without depth only, where they all begin together.
    """
    prompts, decodes, depths, batches = (list(values) for values in (prompts, decodes, depths, batches))
    found: list[Trial] = []
    for phase in phases:
        if phase is Phase.PREFILL:
            found += [Trial(phase=phase, tokens=n, depth=d) for d in depths for n in prompts]
        elif phase is Phase.FIRST_TOKEN:
            found += [Trial(phase=phase, tokens=n) for n in prompts]
        else:
            several = [(d, b) for d in depths for b in batches if b == 1 or d == 0 or phase is Phase.DECODE]
            found += [Trial(phase=phase, tokens=n, depth=d, batch=b) for d, b in several for n in decodes]
    return list(dict.fromkeys(found))


def trained_context(path: str | Path) -> int:
    """Positions that a model was trained for, from its file alone."""
    with GgufFile.open(path) as file:
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        return spec_from_gguf(file.metadata, shapes).context


def check(llm: LLM, trial: Trial) -> None:
    """Raise RequestError (ContextLengthError) unless the model was opened large enough for a trial."""
    limits = llm.limits
    for name in ("tokens", "batch"):
        if getattr(trial, name) < 1:
            raise RequestError(f"{trial.name}: {name} must be at least 1", parameter=name)
    if trial.depth < 0:
        raise RequestError(f"{trial.name}: depth must be at least 0", parameter="depth")
    if trial.context > limits.context:
        raise ContextLengthError(
            f"{trial.name} needs a context of {trial.context}; the model was opened with {limits.context}",
            tokens=trial.context,
            limit=limits.context,
            parameter="context",
        )
    if trial.batch > limits.sequences:
        reason = f"{trial.name} runs {trial.batch} sequences; the model was opened for {limits.sequences}"
        raise RequestError(reason, parameter="batch")
    needed = trial.batch * -(-trial.context // limits.block_size) * limits.block_size
    if needed > limits.blocks * limits.block_size:
        held = limits.blocks * limits.block_size
        reason = f"{trial.name} needs a cache of {needed} positions, which has {held}; give it more with memory"
        raise RequestError(reason, parameter="memory")


def measure(llm: LLM, trial: Trial, repeat: int = 3) -> Measurement:
    """Run a trial `repeat` times, after one step that does not count. Errors as in `check`."""
    check(llm, trial)
    if repeat < 1:
        raise RequestError(f"repeat must be at least 1, not {repeat}", parameter="repeat")
    if trial.phase in (Phase.PREFILL, Phase.DECODE):
        seconds = _on_session(llm, trial, lambda session, run: [run() for _ in range(repeat)])
    else:
        _answer(llm, Trial(phase=trial.phase, tokens=min(trial.tokens, 8), batch=trial.batch))
        seconds = [_answer(llm, trial) for _ in range(repeat)]
    return Measurement(trial=trial, threads=llm.report.threads, seconds=tuple(seconds))


def profile(llm: LLM, trial: Trial) -> PhaseProfile:
    """Where the time of a run of a trial on the session goes. RequestError for backends that cannot tell."""
    check(llm, trial)

    def profiled(session: Session, run: Callable[[], float]) -> tuple[float, list[OpTime]]:
        session.profile(True)
        try:
            seconds = run()
        finally:
            times = session.profile(False)
        return seconds, times

    seconds, times = _on_session(llm, trial, profiled)
    if not times:
        raise RequestError(f"backend '{llm.report.backend}' cannot tell where its time goes", parameter="profile")
    return PhaseProfile(trial=trial, threads=llm.report.threads, seconds=seconds, ops=tuple(times))


def _on_session(llm: LLM, trial: Trial, work: Callable[[Session, Callable[[], float]], T]) -> T:
    """What `work(session, run)` returns, on the engine's thread; `run()` makes a run and tells its seconds."""
    blocks = -(-trial.context // llm.limits.block_size)

    def lent(session: Session, room: Room) -> T:
        if session.limits.states and len(room.states) < 2 * trial.batch:
            raise RequestError(f"{trial.name} needs slots of states that requests have now; try again later")
        tables = [list(room.blocks[i * blocks : (i + 1) * blocks]) for i in range(trial.batch)]
        return work(session, _SessionRun(session, trial, tables, room, llm.vocabulary))

    return llm.borrow(blocks * trial.batch, lent)


class _SessionRun:
    """Runs of a trial on a session that it has for itself; what lies before them is computed once. Of each sequence's
    two slots of states the first keeps those before the run. Of layers with a window each goes through its share of
    blocks again and again.
    """

    def __init__(
        self, session: Session, trial: Trial, tables: Sequence[list[int]], room: Room, vocabulary: int
    ) -> None:
        self._session = session
        self._trial = trial
        self._vocabulary = vocabulary
        self._random = np.random.default_rng(0)
        self._requests = [Request(Kind.GENERATE, [], 0, _ignore, _ignore) for _ in tables]
        self._states = list(zip(room.states[::2], room.states[1::2], strict=False))
        self._rows = _rows(session, trial, room)
        for request, (slot, _) in zip(self._requests, self._states, strict=False):
            request.states = States(now=slot, next=slot)
        for index, (request, blocks) in enumerate(zip(self._requests, tables, strict=True)):
            request.table = Table(blocks)
            if own := room.windows[index :: trial.batch]:
                request.window = Window(0, [own[i % len(own)] for i in range(len(blocks))])
            request.tokens = self._tokens(trial.depth)
            self._prefill(request)
        warm = min(trial.tokens, session.limits.rows) if trial.phase is Phase.PREFILL else 1
        self._run(warm)

    def __call__(self) -> float:
        return self._run(self._trial.tokens)

    def _run(self, count: int) -> float:
        """Seconds for so many new tokens of every sequence, drawn before the clock starts."""
        for request in self._requests:
            del request.tokens[self._trial.depth :]
            request.computed = self._trial.depth
        for request, (before, after) in zip(self._requests, self._states, strict=False):
            request.states = States(now=before, next=after)
        new = [self._tokens(count) for _ in self._requests]
        start = time.perf_counter()
        if self._trial.phase is Phase.PREFILL:
            for request, tokens in zip(self._requests, new, strict=True):
                request.tokens += tokens
                self._prefill(request)
        else:
            for column in zip(*new, strict=True):
                for request, token in zip(self._requests, column, strict=True):
                    request.tokens.append(token)
                self._step([Part(request, 1) for request in self._requests])
        return time.perf_counter() - start

    def _prefill(self, request: Request) -> None:
        while request.remaining:
            self._step([Part(request, min(request.remaining, self._rows))])

    def _step(self, parts: list[Part]) -> None:
        self._session.step(make_batch(parts, self._session.limits.block_size))
        for part in parts:
            part.request.computed += part.count
            part.request.states.now = part.request.states.next

    def _tokens(self, count: int) -> list[int]:
        return [int(token) for token in self._random.integers(0, self._vocabulary, count)]


def _rows(session: Session, trial: Trial, room: Room) -> int:
    """Rows that a step of one sequence can have; RequestError where that is none."""
    limits, blocks = session.limits, len(room.windows) // trial.batch
    if not (limits.window_blocks and room.reach):
        return limits.rows
    for rows in range(limits.rows, 0, -1):
        if blocks_seen(room.reach, rows, limits.block_size) <= blocks:
            return rows
    reason = f"{trial.name} needs more than the {len(room.windows)} free blocks of layers with a window"
    raise RequestError(f"{reason}; give the cache more with memory", parameter="memory")


def _answer(llm: LLM, trial: Trial) -> float:
    """Seconds until the first token, or (of several sequences by the sum of their rates) for those after the first."""
    first = trial.phase is Phase.FIRST_TOKEN
    length = trial.tokens if first else max(1, trial.depth)
    params = SamplingParams(max_tokens=1 if first else trial.tokens + 1, temperature=0.0, ignore_eos=True)
    prompts: list[list[int]] = np.random.default_rng().integers(0, llm.vocabulary, (trial.batch, length)).tolist()
    timings = [completion.timings for completion in llm.generate(prompts, params)]
    if first:
        return timings[0].time_to_first_token
    return trial.batch / sum(1 / timing.decode for timing in timings)


def _ignore(event: object) -> None:
    """Nobody waits for events of a measurement."""
