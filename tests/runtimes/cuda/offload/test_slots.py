"""Slots hold each expert once, keep what must stay, and give way to what is used more."""

from __future__ import annotations

import numpy as np
from edgert_runtimes.cuda.offload.slots import HALF_LIFE, NONE, Slots
from hypothesis import given
from hypothesis import strategies as st

MIXTURES, EXPERTS = 3, 6
STEPS = st.lists(
    st.tuples(
        st.integers(0, MIXTURES - 1),
        st.lists(st.integers(0, EXPERTS - 1), min_size=1, max_size=EXPERTS, unique=True),
    ),
    max_size=60,
)


def check(slots: Slots) -> None:
    """No slot has two experts, and no expert a slot that does not exist."""
    taken = slots.slot[slots.slot != NONE]
    assert len(set(taken.tolist())) == len(taken)
    assert ((taken >= 0) & (taken < slots.count)).all()


@given(count=st.integers(1, MIXTURES * EXPERTS), steps=STEPS)
def test_an_expert_has_one_slot_and_a_slot_one_expert(count: int, steps: list[tuple[int, list[int]]]) -> None:
    slots = Slots(count, MIXTURES, EXPERTS)
    for mixture, experts in steps:
        slots.use(mixture, np.array(experts))
        kept = {int(slots.slot[mixture, e]) for e in experts if slots.slot[mixture, e] != NONE}
        before = slots.slot.copy()
        for expert in experts:
            if slots.slot[mixture, expert] != NONE:
                continue
            slot = slots.place(mixture, expert, kept)
            assert slot not in kept
            if slot == NONE:
                assert len(kept) == count  # there was room for nothing more
            else:
                kept.add(slot)
            check(slots)
        for expert in experts:
            if before[mixture, expert] != NONE:
                assert slots.slot[mixture, expert] == before[mixture, expert]


@given(steps=STEPS)
def test_with_room_for_all_nothing_gives_way(steps: list[tuple[int, list[int]]]) -> None:
    slots = Slots(MIXTURES * EXPERTS, MIXTURES, EXPERTS)
    seen = set()
    for mixture, experts in steps:
        slots.use(mixture, np.array(experts))
        for expert in experts:
            if slots.slot[mixture, expert] == NONE:
                assert (mixture, expert) not in seen
                assert slots.place(mixture, expert) != NONE
            seen.add((mixture, expert))
    assert {(int(m), int(e)) for m, e in np.argwhere(slots.slot != NONE)} == seen


def test_the_least_used_gives_way() -> None:
    slots = Slots(2, 1, 4)
    for expert, uses in ((0, 3), (1, 2), (2, 1)):
        for _ in range(uses):
            slots.use(0, np.array([expert]))
        if expert < 2:
            slots.place(0, expert)
    assert slots.place(0, 2, above=slots.score(0, 2)) == NONE
    assert slots.place(0, 2) == 1
    assert slots.slot[0].tolist() == [0, NONE, 1, NONE]


def test_uses_of_long_ago_count_little() -> None:
    slots = Slots(2, 2, 4)
    for _ in range(100):
        slots.use(0, np.array([0]))
    for _ in range(40 * HALF_LIFE):  # past where scores are scaled anew
        slots.use(0, np.array([1]))
    assert slots.score(0, 0) < 1e-6
    assert np.isclose(slots.score(0, 1), 1 / (1 - 2 ** (-1 / HALF_LIFE)), rtol=1e-3)
