"""The memory that Python and the compiled step share: one state, and a table of records, all of int64.

A *record* is a part of an op that threads can do in independent chunks. `RUN` is the address of a kernel
(state, record, chunk, thread) that does one chunk, `PREPARE` that of a kernel (state, record) → number of chunks, run
by one thread when everything before the record is done. Fields from `OPERANDS` on are named beside the kernel they
belong to. Strides count floats unless a name says bytes.
"""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import device
from edgert_quant.jit.primitives import load_i64

# The state. Words that threads write often have a cache line (8 words) of their own.
TICKET = 0  # the open record, its chunks, and how many of them are claimed: see `executor`
DONE = 8  # chunks of the open record that are done
SLEEPERS = 16  # threads that wait in the kernel
WAKE = 24  # counts up whenever sleepers should look again
STOP = 32  # not 0: threads leave
STATUS = 33  # 0, or what ends the step: INTERRUPTED, or 1 + the op at which a router gave NaN
ROWS = 40  # rows of the batch
PICKED = 41  # rows picked
TABLE = 42  # address of the first record
RECORDS = 43  # records to run
THREADS = 44
TOKENS = 45  # addresses of the batch's int32 arrays
POSITIONS = 46
SEQUENCE = 47
SLOTS = 48
BLOCK_TABLES = 49
TABLE_WIDTH = 50
PICK = 51
SCRATCH = 52  # address of the first thread's scratch
SCRATCH_BYTES = 53  # of each thread
SPIN = 54  # rounds of waiting before yielding the core
PROFILE = 55  # 0, or the address of int64 [records + 1]: when each record began, and when the last one ended, in ns
RUNS = 56  # address of int32 [sequences, 4], see `batches.runs_of`; only for models with recurrent states
SEQUENCES = 57  # of the batch
ADAPTERS = 58  # address of int32 [rows]: the adapter of each, -1 for none; only for plans with adapters
WINDOW_SLOTS = 59  # addresses, as SLOTS and BLOCK_TABLES, for layers with a window that have blocks of their own
WINDOW_TABLES = 60
STATE_WORDS = 64

INTERRUPTED = -1

# A record.
RECORD_WORDS = 48
RUN = 0
PREPARE = 1
CHUNKS = 2
COUNT = 3  # ROWS or PICKED: which rows it works on
OP = 4  # index in the plan
UNIT_COST = 5  # rough nanoseconds of one row of work
PER_ROW = 6  # rows of work for each of those (a row has several experts)
OPERANDS = 8

TOKEN_TILE = 128
"""Rows that go through a matrix together, at most: their activations fit into a core's cache beside the weights."""

PANELS = 4 * 8 * TOKEN_TILE
"""Where in a thread's scratch memory matmuls pack panels; what is before it holds addresses of rows."""

READ_BYTES = 16
"""Bytes of weights a core reads in a nanosecond, roughly."""

MULTIPLIES = 64
"""Products a core adds up in a nanosecond, roughly."""

MIN_CHUNK = 4000
"""Nanoseconds of work below which a chunk is not worth claiming."""

CHUNKS_PER_THREAD = 6
"""Most chunks of evenly divided work, so that a late thread costs little."""


@device
def divide(state: Any, units: Any, unit_cost: Any) -> Any:
    """Into how many chunks to divide `units` of equal work: 1 where other threads would not help."""
    threads = load_i64(state, THREADS)
    if threads == 1 or units < 2:
        return 1
    chunks = min(units * unit_cost // MIN_CHUNK, threads * CHUNKS_PER_THREAD, units)
    return max(chunks, 1)


@device
def share(units: Any, chunk: Any, chunks: Any) -> Any:
    """The units (first, end) of one chunk."""
    return units * chunk // chunks, units * (chunk + 1) // chunks


@device
def rows_of(state: Any, record: Any) -> Any:
    """How many rows of work the record has."""
    return load_i64(state, load_i64(record, COUNT)) * load_i64(record, PER_ROW)


@device
def scratch_of(state: Any, thread: Any) -> Any:
    """The address of a thread's scratch memory."""
    return load_i64(state, SCRATCH) + thread * load_i64(state, SCRATCH_BYTES)
