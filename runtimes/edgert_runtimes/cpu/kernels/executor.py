"""How threads walk the table. A record ends when its chunks are done, whoever ran them; nobody waits for a thread that
does nothing.

TICKET holds the index of the open record, its number of chunks, and how many of them are claimed, in one word:
claiming is one atomic addition, and a claim cannot be mistaken for one of another record or step. Whoever finishes the
last chunk of a record prepares the next, runs those of a single chunk at once, by itself, and opens the first that has
several. So a chain of small records costs no barrier at all. After the last record the ticket says END, and workers
wait for the next step: spinning, then asleep.
"""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import device, kernel
from edgert_quant.jit.primitives import (
    call2,
    call4,
    fetch_add,
    load_acquire,
    load_i64,
    pause,
    store_i64,
    store_release,
    yield_thread,
)

from edgert_runtimes.cpu.kernels.table import (
    CHUNKS,
    DONE,
    PREPARE,
    PROFILE,
    RECORD_WORDS,
    RECORDS,
    RUN,
    SLEEPERS,
    SPIN,
    STATUS,
    STOP,
    TABLE,
    TICKET,
    WAKE,
)
from edgert_runtimes.cpu.kernels.waiting import (
    LONGEST_NAP,
    SHORTEST_NAP,
    YIELDS,
    nanoseconds,
    sleep_while,
    wake_sleepers,
)

INDEX_SHIFT = 44
CHUNKS_SHIFT = 22
FIELD = (1 << CHUNKS_SHIFT) - 1
"""Mask of the chunks, and of the claims: each thread can claim once too often, far below the limit."""
END = 1 << 18
"""The index of no record; larger than any."""
IDLE = END << INDEX_SHIFT
"""The ticket between steps."""


@device
def record_at(state: Any, index: Any) -> Any:
    """The address of a record."""
    return load_i64(state, TABLE) + 8 * RECORD_WORDS * index


@device(inline=False)
def publish(state: Any, ticket: Any, wake: Any) -> Any:
    """Set the ticket, and wake who sleeps."""
    store_release(state, TICKET, ticket)
    if wake:
        fetch_add(state, WAKE, 1)
        if load_acquire(state, SLEEPERS) > 0:
            wake_sleepers(state, WAKE)


@device(inline=False)
def note_time(profile: Any, index: Any) -> Any:
    """Set down that everything before a record is done."""
    store_i64(profile, index, nanoseconds())


@device(inline=False)
def advance(state: Any, index: Any, thread: Any) -> Any:
    """Run records from `index` on while they are single chunks, then open the next, or tell that all are done."""
    records, profile = load_i64(state, RECORDS), load_i64(state, PROFILE)
    while index < records and load_i64(state, STATUS) == 0:
        if profile != 0:
            note_time(profile, index)
        record = record_at(state, index)
        chunks = call2(load_i64(record, PREPARE), state, record)
        store_i64(record, CHUNKS, chunks)
        if chunks > 1:
            store_i64(state, DONE, 0)
            publish(state, index << INDEX_SHIFT | chunks << CHUNKS_SHIFT, True)
            return
        if chunks == 1:
            call4(load_i64(record, RUN), state, record, 0, thread)
        index += 1
    if profile != 0:
        note_time(profile, index)
    publish(state, IDLE, thread != 0)  # nobody but thread 0 waits for the end


@device(inline=False)
def wait_for_change(state: Any, ticket: Any) -> Any:
    """Return when the ticket is no longer `ticket`, or threads are to leave: spin, yield, then sleep until then."""
    for _ in range(load_i64(state, SPIN)):
        pause()
        if load_acquire(state, TICKET) != ticket:
            return
    for _ in range(YIELDS):
        yield_thread()
        if load_acquire(state, TICKET) != ticket:
            return
    fetch_add(state, SLEEPERS, 1)
    nap, seen = SHORTEST_NAP, load_acquire(state, WAKE)
    while load_acquire(state, TICKET) == ticket and load_acquire(state, STOP) == 0:
        sleep_while(state, WAKE, seen, nap)
        nap, seen = min(2 * nap, LONGEST_NAP), load_acquire(state, WAKE)
    fetch_add(state, SLEEPERS, -1)


@device(inline=False)
def work(state: Any, thread: Any, stay: Any) -> Any:
    """Claim and run chunks until the step is done, or with `stay` until STOP is set."""
    while True:
        ticket = load_acquire(state, TICKET)
        if ticket >> INDEX_SHIFT != END:
            if (ticket & FIELD) < (ticket >> CHUNKS_SHIFT & FIELD):
                claim = fetch_add(state, TICKET, 1)
                index, chunks, chunk = claim >> INDEX_SHIFT, claim >> CHUNKS_SHIFT & FIELD, claim & FIELD
                if chunk < chunks:
                    record = record_at(state, index)
                    call4(load_i64(record, RUN), state, record, chunk, thread)
                    if fetch_add(state, DONE, 1) + 1 == chunks:
                        advance(state, index + 1, thread)
                continue
        elif not stay:
            return
        if stay and load_acquire(state, STOP) != 0:
            return
        wait_for_change(state, ticket)


@kernel
def run_step(state: int) -> int:
    """Run the whole table as thread 0; the status."""
    store_i64(state, STATUS, 0)
    advance(state, 0, 0)
    work(state, 0, False)
    return int(load_i64(state, STATUS))


@kernel
def run_worker(state: int, thread: int) -> None:
    """A worker's life, until `stop_workers`."""
    work(state, thread, True)


@kernel
def stop_workers(state: int) -> None:
    """Make every worker return."""
    store_release(state, STOP, 1)
    fetch_add(state, WAKE, 1)
    wake_sleepers(state, WAKE)
