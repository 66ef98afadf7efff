"""Prefixes that the cache had no room for, and those of another process, come back from the disk; nothing changes."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from edgert_models.errors import CancelledError, DeadlineError
from edgert_runtimes.base import Limits

from edgert.engine.engine import Engine
from edgert.engine.prefixes.segment import Segment
from edgert.engine.prefixes.shelf import Shelf
from edgert.engine.prefixes.store import BLOCK, STATE, WINDOW, Reader, Store
from edgert.engine.windows import window_blocks
from tests.edgert.engine.fake import (
    FakeSession,
    RecurrentSession,
    WindowedSession,
    expected,
    greedy,
    limits,
    make_engine,
    start,
)

PROMPT = list(range(1, 39))  # nine blocks of four, and two tokens
ROOTS = [b"model".ljust(32), b"adapter".ljust(32)]


def opened(
    folder: Path,
    sizes: Limits | None = None,
    kind: Callable[[Limits], FakeSession] = FakeSession,
    roots: Sequence[bytes] = ROOTS,
) -> tuple[Engine, FakeSession, Shelf]:
    session = kind(sizes or limits())
    shelf = Shelf(Store(folder, 1 << 20), roots)
    return make_engine(session, shelf=shelf), session, shelf


def ask(engine: Engine, prompt: Sequence[int], count: int = 6) -> tuple[int, int]:
    """Check an answer; of its prompt how many tokens were cached, and on disk."""
    request, collector = start(engine, prompt, max_tokens=count, temperature=0)
    assert collector.tokens() == expected(prompt, greedy, count)
    return request.cached_tokens, request.disk_tokens


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*"))


def test_a_prompt_is_found_after_a_restart(tmp_path: Path) -> None:
    engine, _, _ = opened(tmp_path)
    assert ask(engine, PROMPT) == (0, 0)
    engine.close()
    engine, session, _ = opened(tmp_path)
    assert ask(engine, PROMPT) == (36, 36)
    assert sum(len(batch.tokens) for batch in session.batches) == 2 + 5
    assert ask(engine, PROMPT) == (37, 0)  # in memory now
    assert len(session.threads) == 1
    now = engine.statistics()
    assert (now.cached_tokens, now.disk_tokens, now.disk_writes, now.disk_damaged) == (73, 36, 0, 0)
    assert now.disk_bytes == sum({path.stat().st_ino: path.stat().st_size for path in files(tmp_path)}.values()) > 0
    # The answer, but for its last token, is there, too.
    assert ask(engine, [*PROMPT, *expected(PROMPT, greedy, 6), 7]) == (43, 0)
    engine.close()


def test_what_is_evicted_comes_back(tmp_path: Path) -> None:
    engine, _, shelf = opened(tmp_path, limits(blocks=16))
    others = [[n, *PROMPT[1:]] for n in range(40, 44)]
    assert ask(engine, PROMPT) == (0, 0)
    for other in others:
        assert ask(engine, other) == (0, 0)
    found = [ask(engine, prompt) for prompt in (PROMPT, *others, PROMPT)]
    assert all(cached == 36 for cached, _ in found)
    assert sum(disk for _, disk in found) > 150
    before = shelf.written
    for prompt in (PROMPT, *others):  # what is there is not written again
        ask(engine, prompt)
    assert shelf.written - before <= 5
    engine.close()


def test_other_models_and_adapters_find_nothing(tmp_path: Path) -> None:
    engine, _, _ = opened(tmp_path)
    ask(engine, PROMPT)
    engine.close()
    engine, _, _ = opened(tmp_path, roots=[b"another".ljust(32)])
    assert ask(engine, PROMPT) == (0, 0)
    engine.close()
    engine, session, _ = opened(tmp_path)
    request, collector = start_adapted(engine, 0)
    assert collector.tokens() == expected(PROMPT, greedy, 3)
    assert request.cached_tokens == 0
    assert session.batches
    engine.close()
    engine, _, _ = opened(tmp_path)
    request, collector = start_adapted(engine, 0)
    collector.finish()
    assert request.disk_tokens == 36
    engine.close()


def start_adapted(engine: Engine, adapter: int):  # type: ignore[no-untyped-def]
    from edgert.engine.params import SamplingParams
    from tests.edgert.engine.fake import Collector

    collector = Collector()
    return engine.submit(PROMPT, SamplingParams(max_tokens=3, temperature=0), collector, adapter=adapter), collector


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "left"),
    [(flipped, 16), (lambda data, place: data[:-3], 0), (lambda data, place: b"", 0)],
    ids=["one block", "cut", "empty"],
)
def test_what_is_damaged_is_computed(tmp_path: Path, damage: Callable[[bytes, int], bytes], left: int) -> None:
    engine, _, shelf = opened(tmp_path)
    ask(engine, PROMPT)
    names = list(engine._worker.scheduler.pool.names_after(engine._worker.scheduler.pool.match([0])[0], PROMPT))
    engine.close()
    path = shelf.store._path(names[4], BLOCK)
    assert path.stat().st_nlink == len(names) + 1  # one file has all of them, and the first block of the answer
    segment = Segment(path)
    place = segment._places[names[4]][0]
    segment.close()
    path.write_bytes(damage(path.read_bytes(), place))
    engine, _, _ = opened(tmp_path)
    assert ask(engine, PROMPT) == (left, left)
    assert engine.statistics().disk_damaged == 1
    engine.close()
    engine, _, _ = opened(tmp_path)
    assert ask(engine, PROMPT) == (36, 36)  # it has been written again
    engine.close()


def test_content_that_the_session_refuses_is_computed(tmp_path: Path) -> None:
    engine, _, _ = opened(tmp_path)
    ask(engine, PROMPT)
    engine.close()
    engine, session, _ = opened(tmp_path)
    session.write_blocks = lambda blocks, content: 1 / 0  # type: ignore[assignment]
    assert ask(engine, PROMPT) == (0, 0)
    engine.close()


def slow(shelf: Shelf) -> tuple[threading.Event, threading.Event]:
    """A disk that answers when it is told to: it has been asked, and it may answer."""
    asked, may, reading = threading.Event(), threading.Event(), shelf.store.reading

    def wait(kind: str) -> AbstractContextManager[Reader]:
        asked.set()
        assert may.wait(20)
        return reading(kind)

    shelf.store.reading = wait  # type: ignore[method-assign]
    return asked, may


def test_a_slow_disk_stalls_nobody_else(tmp_path: Path) -> None:
    engine, _, _ = opened(tmp_path)
    ask(engine, PROMPT)
    engine.close()
    engine, _, shelf = opened(tmp_path)
    asked, may = slow(shelf)
    waiting = start(engine, PROMPT, max_tokens=6, temperature=0)
    assert asked.wait(20)
    also = start(engine, PROMPT, max_tokens=6, temperature=0)
    assert ask(engine, [9, 9, 9], 20) == (0, 0)
    _, rows = start(engine, [5] * 8, max_tokens=1)
    rows.finish()
    assert waiting[1].queue.empty()
    may.set()
    for request, collector in (waiting, also):
        assert collector.tokens() == expected(PROMPT, greedy, 6)
        assert request.cached_tokens == 36
    engine.close()


@pytest.mark.parametrize("ending", ["cancel", "deadline", "close"])
def test_who_waits_for_the_disk_can_end(tmp_path: Path, ending: str) -> None:
    engine, _, _ = opened(tmp_path)
    ask(engine, PROMPT)
    engine.close()
    engine, _, shelf = opened(tmp_path)
    asked, may = slow(shelf)
    request, collector = start(engine, PROMPT, max_tokens=6, timeout=0.2 if ending == "deadline" else None)
    assert asked.wait(20)
    if ending == "close":
        closing = threading.Thread(target=engine.close)
        closing.start()
    elif ending == "cancel":
        request.cancel()
    with pytest.raises(DeadlineError if ending == "deadline" else CancelledError):
        collector.tokens()
    may.set()
    if ending == "close":
        closing.join(20)
        assert not closing.is_alive()
    else:
        assert engine.statistics().blocks_held == 0
        assert ask(engine, PROMPT)[0] == 36
    engine.close()


def test_a_fetching_request_gives_way_to_those_who_decode(tmp_path: Path) -> None:
    engine, _, _ = opened(tmp_path)
    ask(engine, PROMPT)
    engine.close()
    engine, session, shelf = opened(tmp_path, limits(blocks=20))
    asked, may = slow(shelf)
    session.gate.clear()
    first = start(engine, [7] * 20, max_tokens=40, temperature=0)
    second = start(engine, PROMPT, max_tokens=6, temperature=0)
    session.gate.set()
    assert asked.wait(20)
    assert first[1].tokens() == expected([7] * 20, greedy, 40)
    may.set()
    assert second[1].tokens() == expected(PROMPT, greedy, 6)
    assert engine.statistics().preemptions == 1
    engine.close()


def test_loans_keep_what_they_push_out(tmp_path: Path) -> None:
    engine, _, _ = opened(tmp_path, limits(blocks=16))
    ask(engine, PROMPT)
    engine.borrow(16, lambda session, room: session.write_blocks(room.blocks, 0 * session.read_blocks(room.blocks)))  # type: ignore[attr-defined]
    assert ask(engine, PROMPT) == (36, 36)
    engine.close()


def windowed(folder: Path, **sizes: int) -> tuple[Engine, FakeSession, Shelf]:
    """Of a window of six positions, with blocks for two sequences."""
    own = limits(window_blocks=window_blocks(6, 2, limits()), **sizes)
    return opened(folder, own, partial(WindowedSession, reach=6))


def test_windows_are_found_after_a_restart(tmp_path: Path) -> None:
    engine, _, _ = windowed(tmp_path)
    assert ask(engine, PROMPT) == (0, 0)
    engine.close()
    # Of both layers all ten whole blocks; of the one with the window what the ends of prompt and answer see.
    assert len([path for path in files(tmp_path) if path.suffix == ".kv"]) == 10
    assert len([path for path in files(tmp_path) if path.suffix == ".window"]) == 3
    engine, session, _ = windowed(tmp_path)
    assert ask(engine, PROMPT) == (36, 36)
    assert len(session.batches[0].tokens) == 2
    assert ask(engine, PROMPT) == (36, 0)
    assert ask(engine, [*PROMPT, *expected(PROMPT, greedy, 6), 7]) == (40, 0)
    assert engine.statistics().window_blocks_held == 0
    engine.close()


@pytest.mark.parametrize("blocks", [16, 300])
def test_windows_that_were_evicted_come_back(tmp_path: Path, blocks: int) -> None:
    """With what the other layers have of the same positions, or where that is still in memory."""
    engine, _, _ = windowed(tmp_path, blocks=blocks)
    prompts = [[n, *PROMPT[1:]] for n in range(40, 49)]
    for prompt in prompts:
        assert ask(engine, prompt) == (0, 0)
    assert [ask(engine, prompt)[0] for prompt in prompts] == [36] * 9
    engine.close()


@pytest.mark.parametrize(("kind", "place"), [(BLOCK, 3), (WINDOW, 7), (WINDOW, 8)])
def test_windows_or_blocks_that_are_damaged_are_computed(tmp_path: Path, kind: str, place: int) -> None:
    engine, _, shelf = windowed(tmp_path)
    ask(engine, PROMPT)
    names = list(engine._worker.scheduler.pool.names_after(engine._worker.scheduler.pool.match([0])[0], PROMPT))
    engine.close()
    shelf.store._path(names[place], kind).write_bytes(b"nothing")
    engine, _, _ = windowed(tmp_path)
    assert ask(engine, PROMPT) == (0, 0)
    assert ask(engine, PROMPT) == (36, 0)
    engine.close()


def recurrent(folder: Path, **sizes: int) -> tuple[Engine, FakeSession, Shelf]:
    return opened(folder, limits(states=8, **sizes), RecurrentSession)


def test_recurrent_states_are_found_after_a_restart(tmp_path: Path) -> None:
    engine, _, _ = recurrent(tmp_path)
    assert ask(engine, PROMPT) == (0, 0)
    engine.close()
    engine, session, _ = recurrent(tmp_path)
    assert ask(engine, PROMPT) == (36, 36)
    assert len(session.batches[0].tokens) == 2
    assert ask(engine, PROMPT) == (36, 0)
    engine.close()


def test_states_that_were_evicted_come_back(tmp_path: Path) -> None:
    engine, _, _ = recurrent(tmp_path, blocks=300)
    prompts = [[n, *PROMPT[1:]] for n in range(40, 49)]  # blocks have room for all, states do not
    for prompt in prompts:
        assert ask(engine, prompt) == (0, 0)
    found = [ask(engine, prompt) for prompt in prompts]
    assert all(cached == 36 for cached, _ in found)
    engine.close()


@pytest.mark.parametrize("kind", [BLOCK, STATE])
def test_states_or_blocks_that_are_damaged_are_computed(tmp_path: Path, kind: str) -> None:
    engine, _, shelf = recurrent(tmp_path)
    ask(engine, PROMPT)
    names = list(engine._worker.scheduler.pool.names_after(engine._worker.scheduler.pool.match([0])[0], PROMPT))
    engine.close()
    shelf.store._path(names[8 if kind == STATE else 3], kind).write_bytes(b"nothing")
    engine, _, _ = recurrent(tmp_path)
    assert ask(engine, PROMPT) == (0, 0)
    assert ask(engine, PROMPT) == (36, 0)
    engine.close()
