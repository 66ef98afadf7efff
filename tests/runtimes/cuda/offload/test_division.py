"""Experts are divided between the host and copies so that both end as soon as can be."""

from __future__ import annotations

import itertools

from edgert_runtimes.cuda.offload.division import Rates, Task, divide
from hypothesis import given
from hypothesis import strategies as st

TASKS = st.lists(
    st.builds(lambda expert, rows: Task(expert, 2_000_000, 3_000_000 * rows), st.integers(0, 9), st.integers(1, 200)),
    max_size=7,
)


def end(copied: list[Task], host: list[Task], rates: Rates) -> float:
    return max(sum(map(rates.copying, copied)), sum(map(rates.on_host, host)))


@given(tasks=TASKS, copied=st.floats(1e8, 1e11), read=st.floats(1e8, 1e11), room=st.integers(0, 8))
def test_nothing_is_dropped_and_no_room_overrun(tasks: list[Task], copied: float, read: float, room: int) -> None:
    first, second = divide(tasks, Rates(copied, read, 50 * read), room)
    assert len(first) <= room
    assert sorted(map(id, first + second)) == sorted(map(id, tasks))


@given(tasks=TASKS, copied=st.floats(1e8, 1e11), read=st.floats(1e8, 1e11))
def test_it_ends_at_most_twice_as_late_as_the_best_division(tasks: list[Task], copied: float, read: float) -> None:
    rates = Rates(copied, read, 50 * read)
    best = min(
        end(
            [t for t, c in zip(tasks, choice, strict=True) if c],
            [t for t, c in zip(tasks, choice, strict=True) if not c],
            rates,
        )
        for choice in itertools.product((False, True), repeat=len(tasks))
    )
    assert end(*divide(tasks, rates, len(tasks)), rates) <= 2 * best * (1 + 1e-9)


def test_a_slow_host_copies_and_a_slow_bus_computes() -> None:
    tasks = [Task(expert, 2_000_000, 3_000_000) for expert in range(8)]
    assert len(divide(tasks, Rates(25e9, 1e8, 1e10), 8)[0]) >= 7
    assert not divide(tasks, Rates(1e8, 50e9, 1e12), 8)[0]


def test_rates_move_towards_what_is_measured() -> None:
    rates = Rates()
    tasks = [Task(0, 4_000_000, 1_000_000)] * 3
    for _ in range(200):
        rates.computed(tasks, 1e-3)
        rates.copied(8_000_000, 1e-3)
    assert abs(sum(map(rates.on_host, tasks)) - 1e-3) < 1e-6
    assert abs(rates.copying(Task(0, 8_000_000, 0)) - 1e-3) < 2e-5
