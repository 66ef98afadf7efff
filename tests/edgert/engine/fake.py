"""A session without a model: its logits are a function of the token history that it reads back from its own cache.

Each slot remembers the token and the position that were stored there. What a picked row gives depends on every token
before it, found through the tables alone, so that a wrong slot, a wrong table, a block shared or evicted too early or
a forgotten copy changes the tokens, or fails a check.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
from edgert_models.errors import BackendError, CancelledError
from edgert_runtimes.base import Batch, Limits, LoadReport, OpTime
from edgert_runtimes.batches import first_seen_at, runs_of

from edgert.engine.engine import Engine
from edgert.engine.params import SamplingParams
from edgert.engine.request import Event, Failed, OnEvent, Request, Rows, Token

VOCABULARY = 50
WIDTH = 8


def limits(**changes: int) -> Limits:
    sizes = {"context": 64, "rows": 16, "sequences": 4, "blocks": 64, "block_size": 4, **changes}
    return Limits(**sizes)


def history_logits(tokens: Sequence[int], width: int = VOCABULARY) -> np.ndarray:
    digest = hashlib.blake2b(np.asarray(tokens, dtype=np.int32).tobytes(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "little"))
    return generator.normal(0.0, 2.0, width).astype(np.float32)


class FakeSession:
    def __init__(self, limits: Limits, *, delay: float = 0.0, poison: int | None = None) -> None:
        self.limits = limits
        self.report = LoadReport(
            backend="fake",
            threads=1,
            instruction_set="none",
            weights=(),
            cache_bytes=0,
            workspace_bytes=0,
            seconds=0.0,
        )
        self.delay = delay
        self.poison = poison  # a token whose presence in a batch fails the step
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.interrupted = threading.Event()
        self.batches: list[Batch] = []
        self.copies = 0
        self.closed = 0
        self.threads: set[int] = set()
        slots = limits.blocks * limits.block_size
        self._tokens = np.full(slots, -1, dtype=np.int64)
        self._positions = np.full(slots, -1, dtype=np.int64)

    def step(self, batch: Batch, *, hidden: bool = False) -> np.ndarray:
        self.threads.add(threading.get_ident())
        self.entered.set()
        assert self.gate.wait(20)
        if self.delay:
            self.interrupted.clear()
            if self.interrupted.wait(self.delay):
                raise CancelledError("the step was interrupted")
        self._check(batch)
        self.batches.append(batch)
        if self.poison is not None and self.poison in batch.tokens:
            self._tokens[batch.slots] = 0  # a failed step leaves rubbish behind
            raise BackendError("layer 3: the router gave NaN")
        self._tokens[batch.slots] = batch.tokens
        self._positions[batch.slots] = batch.positions
        width = WIDTH if hidden else VOCABULARY
        rows = [history_logits(self._history(batch, row), width) for row in batch.pick]
        return np.array(rows, dtype=np.float32).reshape(len(rows), width)

    def interrupt(self) -> None:
        self.interrupted.set()

    def profile(self, on: bool) -> list[OpTime]:
        return []

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        size = self.limits.block_size
        for source, target in pairs:
            for cache in (self._tokens, self._positions):
                cache[target * size : (target + 1) * size] = cache[source * size : (source + 1) * size]
            self.copies += 1

    def read_blocks(self, blocks: Sequence[int]) -> np.ndarray:
        self.threads.add(threading.get_ident())
        rows = [cache.reshape(self.limits.blocks, -1)[list(blocks)] for cache in (self._tokens, self._positions)]
        return np.concatenate(rows, axis=1).view(np.uint8)

    def write_blocks(self, blocks: Sequence[int], content: np.ndarray) -> None:
        self.threads.add(threading.get_ident())
        for cache, rows in zip(
            (self._tokens, self._positions), np.split(content.view(np.int64), 2, axis=1), strict=True
        ):
            cache.reshape(self.limits.blocks, -1)[list(blocks)] = rows

    def read_states(self, slots: Sequence[int]) -> np.ndarray:
        raise AssertionError("it has none")

    def write_states(self, slots: Sequence[int], content: np.ndarray) -> None:
        raise AssertionError("it has none")

    def close(self) -> None:
        self.closed += 1

    def _check(self, batch: Batch) -> None:
        limits, size = self.limits, self.limits.block_size
        arrays = (batch.tokens, batch.positions, batch.sequence, batch.slots, batch.tables, batch.lengths, batch.pick)
        assert all(array.dtype == np.int32 for array in arrays)
        assert 0 < len(batch.tokens) <= limits.rows
        assert len(batch.lengths) == len(batch.tables) <= limits.sequences
        assert batch.tables.shape[1] <= limits.table_width
        assert batch.lengths.max() <= limits.context
        assert len(set(batch.slots.tolist())) == len(batch.slots), "two rows write the same slot"
        blocks = batch.tables[batch.sequence, batch.positions // size]
        assert (batch.slots == blocks * size + batch.positions % size).all()
        for sequence, length in enumerate(batch.lengths):
            rows = batch.positions[batch.sequence == sequence]
            assert (rows == np.arange(length - len(rows), length)).all()
            table = batch.tables[sequence, : -(-length // size)]
            assert len(set(table.tolist())) == len(table)
            written = set((batch.slots[batch.sequence == sequence] // size).tolist())
            for other, other_length in enumerate(batch.lengths):
                if other != sequence:
                    shared = written & set(batch.tables[other, : -(-other_length // size)].tolist())
                    assert not shared, "a block is written that another sequence reads"

    def _history(self, batch: Batch, row: int) -> np.ndarray:
        position = int(batch.positions[row])
        everything = np.arange(position + 1)
        size = self.limits.block_size
        slots = batch.tables[batch.sequence[row]][everything // size] * size + everything % size
        assert (self._positions[slots] == everything).all(), "the cache does not hold these positions"
        return self._tokens[slots]


class RecurrentSession(FakeSession):
    """One that remembers the history in slots of states, and believes these; steps that fail spoil what they write."""

    def __init__(self, limits: Limits, **options: Any) -> None:
        super().__init__(limits, **options)
        self.states: list[tuple[int, ...] | None] = [None] * limits.states

    def read_states(self, slots: Sequence[int]) -> np.ndarray:
        rows = np.full((len(slots), self.limits.context), -1, np.int64)
        for row, slot in zip(rows, slots, strict=True):
            state = self.states[slot]
            assert state is not None, "the slot has no state"
            row[: len(state)] = state
        return rows.view(np.uint8)

    def write_states(self, slots: Sequence[int], content: np.ndarray) -> None:
        for slot, row in zip(slots, content.view(np.int64), strict=True):
            self.states[slot] = tuple(row[row >= 0].tolist())

    def step(self, batch: Batch, *, hidden: bool = False) -> np.ndarray:
        runs = runs_of(batch, self.limits)
        before = [() if source < 0 else self.states[source] for *_, source, _ in runs.tolist()]
        for (first, _, _, target), known in zip(runs.tolist(), before, strict=True):
            assert known is not None, "the slot has no state"
            assert len(known) == batch.positions[first], "the state is one of other positions"
            self.states[target] = None
        out = super().step(batch, hidden=hidden)
        for (first, count, _, target), known in zip(runs.tolist(), before, strict=True):
            self.states[target] = (*known, *batch.tokens[first : first + count].tolist())
        for row, logits in zip(batch.pick, out, strict=True):
            first, _, _, target = runs[batch.sequence[row]].tolist()
            seen = self.states[target][: batch.positions[row] + 1]
            np.testing.assert_array_equal(logits, history_logits(seen, len(logits)))
        return out


class WindowedSession(FakeSession):
    """One of which a layer has a window with blocks of its own: a slot of theirs remembers all tokens up to it, and who
    sees it must have had the same.
    """

    def __init__(self, limits: Limits, reach: int, **options: Any) -> None:
        super().__init__(limits, **options)
        self.reach = reach
        self.seen = np.zeros(limits.window_blocks * limits.block_size, np.int64)

    def step(self, batch: Batch, *, hidden: bool = False) -> np.ndarray:
        size, slots = self.limits.block_size, batch.window_slots
        assert batch.window_tables.shape == batch.tables.shape
        assert len(set(slots.tolist())) == len(batch.tokens), "two rows write the same slot"
        blocks = batch.window_tables[batch.sequence, batch.positions // size]
        assert (slots == blocks * size + batch.positions % size).all()
        self.seen[slots] = -1  # a failed step leaves rubbish behind
        out = super().step(batch, hidden=hidden)
        histories = [tuple(self._history(batch, row).tolist()) for row in range(len(batch.tokens))]
        self.seen[slots] = [hash(history) for history in histories]
        for history, table in zip(histories, batch.window_tables[batch.sequence], strict=True):
            for position in range(first_seen_at(len(history) - 1, self.reach), len(history)):
                slot = table[position // size] * size + position % size
                assert self.seen[slot] == hash(history[: position + 1]), "the window holds other positions"
        return out

    def read_blocks(self, blocks: Sequence[int], *, windows: bool = False) -> np.ndarray:
        if not windows:
            return super().read_blocks(blocks)
        return self.seen.reshape(self.limits.window_blocks, -1)[list(blocks)].view(np.uint8)

    def write_blocks(self, blocks: Sequence[int], content: np.ndarray, *, windows: bool = False) -> None:
        if not windows:
            super().write_blocks(blocks, content)
        else:
            self.seen.reshape(self.limits.window_blocks, -1)[list(blocks)] = content.view(np.int64)


class Collector:
    """Keeps a request's events, and waits for the last."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[Event] = SimpleQueue()
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.queue.put(event)

    def next(self) -> Event:
        event = self.queue.get(timeout=20)
        self.events.append(event)
        return event

    def finish(self) -> Event:
        while True:
            event = self.next()
            if not isinstance(event, Token) or event.ending is not None:
                return event

    def tokens(self) -> list[int]:
        last = self.finish()
        if isinstance(last, Failed):
            raise last.error
        return [event.choice.token for event in self.events if isinstance(event, Token)]

    def rows(self) -> np.ndarray:
        last = self.finish()
        if isinstance(last, Failed):
            raise last.error
        assert isinstance(last, Rows)
        return last.values


def make_engine(session: FakeSession, **options: object) -> Engine:
    reach = session.reach if isinstance(session, WindowedSession) else 0
    return Engine(session, vocabulary=VOCABULARY, reach=reach, **options)  # type: ignore[arg-type]


def start(engine: Engine, prompt: Sequence[int], **params: object) -> tuple[Request, Collector]:
    collector = Collector()
    return engine.submit(prompt, SamplingParams(**params), collector), collector  # type: ignore[arg-type]


def expected(prompt: Sequence[int], choose: Callable[[np.ndarray, list[int]], int], count: int) -> list[int]:
    """What `count` tokens must be, straight from the definition of the fake."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(choose(history_logits(tokens), tokens))
    return tokens[len(prompt) :]


def greedy(logits: np.ndarray, tokens: list[int]) -> int:
    return int(logits.argmax())


__all__ = [
    "Collector",
    "FakeSession",
    "OnEvent",
    "RecurrentSession",
    "WindowedSession",
    "expected",
    "greedy",
    "history_logits",
    "limits",
    "make_engine",
    "start",
]
