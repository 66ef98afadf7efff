"""Models that are loaded when a request names them, and unloaded when they idle or room is needed.

Everything here runs on the event loop; opening and closing a model happens on a thread. Loads queue for one lock, in
the order of their requests. The one that has it makes room: models that nobody uses go first, those that idled longest
first of all; where all are in use it marks one as leaving, whose next requests wait, and whose present ones end in
peace. So a request for a model that does not fit beside the others waits its turn, and the others go on meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from edgert_models.errors import BackendError, EdgertError, MemoryBudgetError, QueueFullError
from starlette.concurrency import run_in_threadpool

from edgert import LLM
from edgert.server.errors import UnknownModelError
from edgert.server.models.catalogue import Catalogue, Entry


class _Unchanged(Enum):
    UNCHANGED = "unchanged"


UNCHANGED = _Unchanged.UNCHANGED
Keep = float | None | Literal[_Unchanged.UNCHANGED]
"""Seconds; None for ever; or as it is."""


OpenModel = Callable[[Entry, int | None], LLM]
"""Opens a model in so many bytes of memory, weights included (None: as many as it likes); MemoryBudgetError where they
are too few.
"""


@dataclass(eq=False, slots=True)
class Loaded:
    """A model that has been asked for. `users` have it, `waiters` wait for it; `until` is when it goes if nobody comes
    (`time.time()`, None: never).
    """

    entry: Entry
    llm: LLM | None = None
    users: int = 0
    waiters: int = 0
    leaving: bool = False
    pinned: bool = False  # never unloaded
    used_at: float = 0.0
    keep: float | None = None  # seconds that it stays without users; None for ever
    until: float | None = None
    loads: int = 0
    coming: asyncio.Future[EdgertError | None] | None = None
    timer: asyncio.TimerHandle | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def bytes(self) -> int:
        """Bytes that it takes: weights, also where they are mapped, cache and workspace."""
        if self.llm is None:
            return 0
        report = self.llm.report
        weights = report.weight_bytes or self.entry.description().size  # those that read them as they go tell of none
        return weights + report.cache_bytes + report.workspace_bytes


class Fleet:
    """The models of `catalogue`, of which as many are loaded as fit `memory` (bytes, over all of them; None: as many as
    can be opened). Those without users for `keep` seconds are unloaded (None: only for want of room). At most
    `queue_limit` requests wait for a model to load.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        open_model: OpenModel,
        *,
        memory: int | None = None,
        keep: float | None = None,
        queue_limit: int | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.memory = memory
        self.unloads = 0
        self._open = open_model
        self._keep = keep
        self._queue_limit = queue_limit
        self._models: dict[str, Loaded] = {}
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    def of(cls, llm: LLM) -> Fleet:
        """One model that is open, and stays so: who opened it closes it."""
        entry = Entry(llm.name, llm.path, adapters=llm.adapters)
        fleet = cls(Catalogue((entry,)), lambda entry, memory: llm)
        fleet._adopt(Loaded(entry, pinned=True), llm)
        return fleet

    def preload(self, entry: Entry, open_model: OpenModel) -> LLM:
        """Load a model before the server runs, with an opener of its own."""
        return self._adopt(Loaded(entry), _opened(entry, open_model, self._room()))

    @asynccontextmanager
    async def living(self, _: object) -> AsyncIterator[None]:
        """While the server runs; also for models that nobody ever asks for the time begins."""
        for model in self._models.values():
            self._start_timer(model)
        yield
        for model in self._models.values():
            self._stop_timer(model)

    # What there is

    @property
    def vocabulary(self) -> int | None:
        """Token ids are below it, where that is so for all models: there is just one, and it is loaded."""
        one = len(self.catalogue.fixed) == 1 and not self.catalogue.changes
        llms = self.loaded()
        return next(iter(llms.values())).vocabulary if one and llms else None

    def loaded(self) -> dict[str, LLM]:
        """The models that are loaded, by name."""
        return {name: model.llm for name, model in self._models.items() if model.llm is not None}

    @property
    def hangs(self) -> bool:
        """Whether a step of a model has not come back in time."""
        return any(llm.hangs for llm in self.loaded().values())

    def states(self) -> list[Loaded]:
        """How those are that have been loaded, or are being."""
        return list(self._models.values())

    async def entries(self) -> dict[str, Entry]:
        """Every model that can be asked for, by name."""
        catalogue = self.catalogue
        return await run_in_threadpool(catalogue.entries) if catalogue.changes else catalogue.entries()

    async def find(self, name: str | None) -> Entry:
        """The entry that a request means; None is the first, of those that are loaded where there are such.

        UnknownModelError tells what there is.
        """
        known = self._models.get(name or "")
        if known is not None and (known.llm is not None or known.waiters):
            return known.entry
        entries = await self.entries()
        if name is None:
            first = next(iter([*self.loaded(), *entries]), None)
            if first is None:
                raise UnknownModelError("", entries)
            name = first
        for wanted in (name, name.removesuffix(":latest")):  # which Ollama's clients add
            if wanted in entries:
                return entries[wanted]
            called = [entry for entry in entries.values() if wanted in entry.aliases]
            if len(called) == 1:
                return called[0]
        for entry in entries.values():
            if entry.adapter_of(name) is not None:
                return entry
        raise UnknownModelError(name, [each for entry in entries.values() for each in entry.names])

    # Using them

    async def take(self, name: str | None) -> Loaded:
        """A model, loaded if need be, that stays until it is given back.

        UnknownModelError where there is none of that name, QueueFullError where too many wait, and what opening raises.
        """
        entry = await self.find(name)
        model = self._models.setdefault(entry.name, Loaded(entry))
        if model.llm is None and not model.waiters:
            model.entry = entry  # the file may be another one by now
        if model.llm is None or model.leaving:
            await self._wait(model)
        model.users += 1
        model.idle.clear()
        model.used_at = time.monotonic()
        self._stop_timer(model)
        return model

    def give_back(self, model: Loaded, keep: Keep = UNCHANGED) -> None:
        """A request has ended. `keep` is how many seconds its model is to stay without users from now on."""
        model.users -= 1
        model.used_at = time.monotonic()
        if keep is not UNCHANGED:
            model.keep = keep
        if not model.users:
            model.idle.set()
            self._start_timer(model)

    def dismiss(self, name: str) -> None:
        """Let a model go as soon as nobody uses it."""
        if (model := self._models.get(name)) is not None:
            model.keep = 0.0
            if not model.users:
                self._start_timer(model)

    async def unload(self, name: str) -> None:
        """Unload a model, once its requests have ended."""
        async with self._lock:
            model = self._models.get(name)
            if model is not None and model.llm is not None and not model.pinned:
                await self._leave(model)

    def close(self) -> None:
        """Close all models, from any thread; requests that run end with CancelledError. Twice is fine."""
        self._closed = True
        for model in list(self._models.values()):
            if model.llm is not None:
                model.llm.close()

    # Loading

    async def _wait(self, model: Loaded) -> None:
        waiting = sum(other.waiters for other in self._models.values())
        if self._queue_limit is not None and waiting >= self._queue_limit:
            raise QueueFullError(f"{waiting} requests wait for models to be loaded; try again later")
        model.waiters += 1
        try:
            while model.llm is None or model.leaving:
                if model.coming is None:
                    model.coming = asyncio.get_running_loop().create_future()
                    self._begin(self._load(model, model.coming))
                # Shielded: a client that leaves does not end the loading, which others may wait for.
                error = await asyncio.shield(model.coming)
                if error is not None:
                    raise error
        finally:
            model.waiters -= 1

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self, model: Loaded, coming: asyncio.Future[EdgertError | None]) -> None:
        async with self._lock:
            error: EdgertError | None = None
            try:
                if model.llm is None:
                    self._adopt(model, await self._open_in_room(model))
            except EdgertError as problem:
                error = problem
            except Exception as problem:
                error = BackendError(f"loading {model.entry.name!r} failed: {type(problem).__name__}: {problem}")
            model.coming = None
            coming.set_result(error)
            while model.waiters and model.llm is not None:
                await asyncio.sleep(0)  # those who waited take it before the next load may want its room
            if not model.users:
                self._start_timer(model)

    async def _open_in_room(self, model: Loaded) -> LLM:
        """A model in the room that there is, or that is made if anybody still waits for it."""
        while True:
            try:
                return await run_in_threadpool(_opened, model.entry, self._open, self._room())
            except MemoryBudgetError:
                if not model.waiters or not await self._make_room():
                    raise

    def _room(self) -> int | None:
        return None if self.memory is None else self.memory - sum(model.bytes for model in self._models.values())

    def _adopt(self, model: Loaded, llm: LLM) -> LLM:
        if self._closed:
            llm.close()
            raise BackendError("the server is ending")
        model.llm, model.leaving, model.keep = llm, False, self._keep
        model.loads += 1
        model.used_at = time.monotonic()
        model.idle.set()
        self._models[model.entry.name] = model
        return llm

    async def _make_room(self) -> bool:
        """Unload the model that is missed least; false where there is none."""
        there = [model for model in self._models.values() if model.llm is not None and not model.pinned]
        if not there:
            return False
        await self._leave(min(there, key=lambda model: (model.users > 0, model.used_at)))
        return True

    async def _leave(self, model: Loaded) -> None:
        """Unload a model when its users have gone; the lock is held, so nobody loads it meanwhile."""
        model.leaving = True
        self._stop_timer(model)
        await model.idle.wait()
        llm, model.llm, model.leaving = model.llm, None, False
        self.unloads += 1
        if llm is not None:
            await run_in_threadpool(llm.close)

    # Leaving when nobody comes

    def _start_timer(self, model: Loaded) -> None:
        self._stop_timer(model)
        if model.keep is not None and model.llm is not None and not model.pinned:
            model.until = time.time() + model.keep
            model.timer = asyncio.get_running_loop().call_later(model.keep, self._expire, model)

    def _stop_timer(self, model: Loaded) -> None:
        model.until = None
        if model.timer is not None:
            model.timer.cancel()
            model.timer = None

    def _expire(self, model: Loaded) -> None:
        model.timer = None
        self._begin(self._unload_if_idle(model))

    async def _unload_if_idle(self, model: Loaded) -> None:
        async with self._lock:
            if model.llm is not None and not model.users and model.until is not None:
                await self._leave(model)


def _opened(entry: Entry, open_model: OpenModel, room: int | None) -> LLM:
    llm = open_model(entry, room)
    llm.name = entry.name  # what it is called in answers
    return llm
