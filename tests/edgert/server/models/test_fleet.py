"""Loading, sharing room, waiting and unloading, with models that are none."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from edgert_models.errors import BackendError, FileFormatError, MemoryBudgetError, QueueFullError, RequestError

from edgert import LLM
from edgert.server.errors import UnknownModelError
from edgert.server.models.catalogue import Catalogue, Entry
from edgert.server.models.durations import seconds
from edgert.server.models.fleet import Fleet

SIZE = 10


class Models:
    """Opens models of SIZE bytes; counts what is open, and when."""

    def __init__(self, names: str = "abcd") -> None:
        self.catalogue = Catalogue(tuple(Entry(name, Path(name)) for name in names))
        self.open: set[str] = set()
        self.opened: list[str] = []
        self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def __call__(self, entry: Entry, memory: int | None) -> LLM:
        if memory is not None and memory < SIZE:
            raise MemoryBudgetError(f"{entry.name} needs {SIZE}", needed=SIZE, available=memory)
        self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        assert entry.name not in self.open
        self.open.add(entry.name)
        self.opened.append(entry.name)
        self.most = max(self.most, len(self.open))
        report = SimpleNamespace(weight_bytes=SIZE - 3, cache_bytes=2, workspace_bytes=1)
        return cast("LLM", SimpleNamespace(name="?", report=report, close=lambda: self.open.discard(entry.name)))

    def fleet(self, room: int | None = None, **options: Any) -> Fleet:
        return Fleet(self.catalogue, self, memory=None if room is None else room * SIZE, **options)


@pytest.fixture
def models() -> Models:
    return Models()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_model_is_loaded_once_for_all_who_ask(models: Models) -> None:
    async def work() -> None:
        fleet = models.fleet()
        taken = await asyncio.gather(*(fleet.take("b") for _ in range(5)))
        assert models.opened == ["b"]
        assert taken[0].users == 5
        assert taken[0].llm is not None
        assert taken[0].llm.name == "b"
        assert list(fleet.loaded()) == ["b"]
        assert (await fleet.find(None)).name == "b"  # what is loaded comes first
        assert (await fleet.take("b:latest")).entry.name == "b"
        assert models.opened == ["b"]

    run(work())


def test_what_there_is_not(models: Models) -> None:
    async def work() -> None:
        with pytest.raises(UnknownModelError, match="'x' does not exist; this server has 'a', 'b', 'c', 'd'"):
            await models.fleet().take("x")

    run(work())


def test_the_one_that_idled_longest_makes_room(models: Models) -> None:
    async def work() -> None:
        fleet = models.fleet(2)
        for name in "aba":
            fleet.give_back(await fleet.take(name))
        fleet.give_back(await fleet.take("c"))
        assert models.open == {"a", "c"}
        busy = await fleet.take("a")
        fleet.give_back(await fleet.take("d"))
        assert models.open == {"a", "d"}
        assert models.most == 2
        assert busy.llm is not None
        assert fleet.unloads == 2

    run(work())


def test_a_model_in_use_is_waited_for_and_others_go_on(models: Models) -> None:
    async def work() -> None:
        fleet = models.fleet(2)
        first, second = await fleet.take("a"), await fleet.take("b")
        third = asyncio.create_task(fleet.take("c"))
        await until(lambda: first.leaving)
        # Nobody new gets what is leaving; the other goes on.
        again = asyncio.create_task(fleet.take("a"))
        fleet.give_back(await fleet.take("b"))
        await asyncio.sleep(0.01)
        assert not third.done()
        assert not again.done()
        fleet.give_back(first)
        fleet.give_back(await third)
        assert "a" not in models.open or models.opened == ["a", "b", "c", "a"]
        fleet.give_back(await again)
        assert models.opened == ["a", "b", "c", "a"]
        assert "b" in models.open
        assert models.most == 2
        fleet.give_back(second)

    run(work())


def test_what_never_fits_is_an_error(models: Models) -> None:
    async def work() -> None:
        fleet = models.fleet(0)
        with pytest.raises(MemoryBudgetError, match="a needs 10"):
            await fleet.take("a")

    run(work())


def test_a_failure_is_one_for_those_who_asked(models: Models) -> None:
    async def work() -> None:
        fleet = models.fleet()
        models.failure = FileFormatError("a.gguf", "is damaged")
        found = await asyncio.gather(*(fleet.take("a") for _ in range(3)), return_exceptions=True)
        assert [str(error) for error in found] == ["a.gguf: is damaged"] * 3
        models.failure = ZeroDivisionError("oh")
        with pytest.raises(BackendError, match="loading 'a' failed: ZeroDivisionError: oh"):
            await fleet.take("a")
        models.failure = None
        fleet.give_back(await fleet.take("a"))

    run(work())


def test_a_client_that_leaves_does_not_end_the_loading(models: Models) -> None:
    async def work() -> None:
        fleet = models.fleet(keep=0.01)
        models.gate.clear()
        gone, stays = asyncio.create_task(fleet.take("a")), asyncio.create_task(fleet.take("a"))
        await until(lambda: [model.waiters for model in fleet.states()] == [2])
        gone.cancel()
        models.gate.set()
        model = await stays
        assert (model.users, model.waiters) == (1, 0)
        fleet.give_back(model)
        await until(lambda: not models.open)
        models.gate.clear()
        gone = asyncio.create_task(fleet.take("b"))
        await until(lambda: fleet.states()[-1].waiters)
        gone.cancel()
        models.gate.set()
        await until(lambda: "b" in models.opened)
        await until(lambda: not models.open)  # nobody came for it

    run(work())


def test_idle_models_leave_in_time(models: Models) -> None:
    async def work() -> None:
        fleet = models.fleet(keep=0.02)
        model = await fleet.take("a")
        await asyncio.sleep(0.05)
        assert models.open == {"a"}
        fleet.give_back(model)
        assert model.until is not None
        assert 0 < model.until - time.time() < 1
        await until(lambda: not models.open)
        fleet.give_back(await fleet.take("a"), keep=None)  # for ever
        await asyncio.sleep(0.05)
        assert models.open == {"a"}
        fleet.give_back(await fleet.take("a"), keep=0.0)
        await until(lambda: not models.open)
        fleet.give_back(await fleet.take("b"), keep=None)
        busy = await fleet.take("b")
        fleet.dismiss("b")
        fleet.dismiss("nobody")
        await asyncio.sleep(0.01)
        assert models.open == {"b"}
        fleet.give_back(busy)
        await until(lambda: not models.open)

    run(work())


def test_what_nobody_ever_asks_for_leaves_too(models: Models) -> None:
    fleet = models.fleet(keep=0.02)
    fleet.preload(models.catalogue.fixed[0], models)

    async def work() -> None:
        async with fleet.living(None):
            await until(lambda: not models.open)

    run(work())


def test_no_room_is_made_for_nobody(models: Models) -> None:
    async def work() -> None:
        fleet = models.fleet(1)
        fleet.give_back(await fleet.take("a"))
        busy = await fleet.take("a")
        first = asyncio.create_task(fleet.take("b"))
        await until(lambda: busy.leaving)
        second = asyncio.create_task(fleet.take("c"))
        await until(lambda: fleet.states()[-1].waiters)
        second.cancel()
        fleet.give_back(busy)
        fleet.give_back(await first)
        await until(lambda: fleet.states()[-1].coming is None)
        assert models.open == {"b"}
        assert models.opened == ["a", "b"]

    run(work())


def test_what_was_opened_elsewhere_stays(models: Models) -> None:
    llm = models(Entry("a", Path("a")), None)
    llm.name, llm.path, llm.adapters = "a", Path("a"), ()

    async def work() -> None:
        fleet = Fleet.of(llm)
        fleet.give_back(await fleet.take("a"), keep=0.0)
        fleet.dismiss("a")
        await fleet.unload("a")
        await asyncio.sleep(0.01)
        assert models.open == {"a"}

    run(work())


def test_only_so_many_wait(models: Models) -> None:
    async def work() -> None:
        fleet = models.fleet(queue_limit=2)
        models.gate.clear()
        waiting = [asyncio.create_task(fleet.take(name)) for name in "ab"]
        await until(lambda: sum(model.waiters for model in fleet.states()) == 2)
        with pytest.raises(QueueFullError, match="2 requests wait for models to be loaded; try again later"):
            await fleet.take("c")
        models.gate.set()
        for task in waiting:
            fleet.give_back(await task)
        await fleet.take("c")

    run(work())


def test_close_closes_all(models: Models) -> None:
    fleet = models.fleet()
    fleet.preload(models.catalogue.fixed[2], models)
    assert (list(fleet.loaded()), models.open) == (["c"], {"c"})
    run(fleet.take("a"))  # type: ignore[arg-type]
    fleet.close()
    assert not models.open


@pytest.mark.parametrize("seed", range(3))
def test_many_who_come_leave_and_wait(models: Models, seed: int) -> None:
    """Room for two of four: everybody is served or has left, nobody has a model that is closed, and it always fits."""
    draw = random.Random(seed)
    served = 0

    async def ask(fleet: Fleet, name: str, delay: float, length: float) -> None:
        nonlocal served
        await asyncio.sleep(delay)
        model = await fleet.take(name)
        try:
            await asyncio.sleep(length)
            assert name in models.open
            assert model.llm is not None
        finally:
            fleet.give_back(model, keep=0.002 if length > 0.005 else None)
        served += 1

    async def work() -> None:
        fleet = models.fleet(2)
        tasks = [
            asyncio.create_task(ask(fleet, draw.choice("abcd"), draw.random() * 0.1, draw.random() * 0.01))
            for _ in range(120)
        ]
        leaving = draw.sample(tasks, 30)
        for task in leaving:
            await asyncio.sleep(draw.random() * 0.005)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
        assert served >= 90
        assert all(model.users == model.waiters == 0 for model in fleet.states())
        assert models.most <= 2

    run(work())


@pytest.mark.parametrize(
    ("span", "wanted"),
    [(5, 5.0), (-1, None), ("5", 5.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("250ms", 0.25), ("-1s", None), (1e300, None)],
)
def test_spans_of_time(span: str | float, wanted: float | None) -> None:
    assert seconds(span, "keep_alive") == wanted


@pytest.mark.parametrize("span", ["", "m", "five", "5 m", "5m\n", "1" * 65, "٣m", "--1"])
def test_no_spans_of_time(span: str) -> None:

    with pytest.raises(RequestError, match=r"keep_alive: .* is no span of time; write it like 5m or 90s"):
        seconds(span, "keep_alive")
