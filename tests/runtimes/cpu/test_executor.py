"""The walk through the table: every chunk once, records in order, whatever the number of threads."""

import threading

import numpy as np
import pytest
from edgert_quant.jit import kernel
from edgert_quant.jit.primitives import fetch_add, load_i64, store_i64
from edgert_runtimes.cpu.executor import Executor
from edgert_runtimes.cpu.kernels import table
from edgert_runtimes.cpu.kernels.table import CHUNKS, OPERANDS, STATUS

COUNTS = OPERANDS  # int64 [chunks]
WANTED = OPERANDS + 1
ORDER = OPERANDS + 2  # address of the records done so far
FAULTS = OPERANDS + 3  # address of a count of chunks that ran too early
INDEX = OPERANDS + 4
FAIL = OPERANDS + 5


@kernel
def prepare_counted(state: int, record: int) -> int:
    if load_i64(load_i64(record, ORDER), 0) != load_i64(record, INDEX):
        fetch_add(load_i64(record, FAULTS), 0, 1)
    store_i64(load_i64(record, ORDER), 0, load_i64(record, INDEX) + 1)
    return int(load_i64(record, WANTED))


@kernel
def run_counted(state: int, record: int, chunk: int, thread: int) -> None:
    if load_i64(load_i64(record, ORDER), 0) != load_i64(record, INDEX) + 1 or chunk >= load_i64(record, CHUNKS):
        fetch_add(load_i64(record, FAULTS), 0, 1)
    fetch_add(load_i64(record, COUNTS), chunk, 1)
    if load_i64(record, FAIL) != 0:
        store_i64(state, STATUS, load_i64(record, FAIL))


class Program:
    """Records with given numbers of chunks, that count what runs."""

    def __init__(self, chunks: list[int]) -> None:
        self.counts = [np.zeros(max(1, n), np.int64) for n in chunks]
        self.order, self.faults = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self.words = np.zeros((len(chunks), table.RECORD_WORDS), np.int64)
        for i, n in enumerate(chunks):
            row = self.words[i]
            row[table.RUN], row[table.PREPARE] = run_counted.address, prepare_counted.address
            row[COUNTS], row[WANTED], row[INDEX] = self.counts[i].ctypes.data, n, i
            row[ORDER], row[FAULTS] = self.order.ctypes.data, self.faults.ctypes.data

    def step(self, executor: Executor, records: int | None = None) -> int:
        self.order[0] = 0
        return executor.run(len(self.words) if records is None else records)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_every_chunk_runs_once_and_in_order(threads: int) -> None:
    rng = np.random.default_rng(threads)
    chunks = [int(n) for n in rng.choice([0, 1, 1, 2, 3, 7, 64], 60)]
    program = Program(chunks)
    executor = Executor(threads, program.words, 64)
    steps, expected = 150, np.zeros(len(chunks), np.int64)
    for _ in range(steps):
        records = int(rng.integers(0, len(chunks) + 1))
        assert program.step(executor, records) == 0
        expected[:records] += 1
    executor.close()
    assert program.faults[0] == 0
    for wanted, counts, times in zip(chunks, program.counts, expected, strict=True):
        assert (counts[:wanted] == times).all()


def test_a_failure_ends_the_step() -> None:
    program = Program([2, 3, 2, 1])
    program.words[1, FAIL] = 7
    executor = Executor(2, program.words, 64)
    for times in range(1, 20):
        assert program.step(executor) == 7
        assert program.counts[1].tolist() == [times] * 3
    executor.close()
    assert program.counts[2].tolist() == [0, 0]
    assert program.faults[0] == 0


def test_closing_joins_the_threads() -> None:
    before = threading.active_count()
    executor = Executor(5, Program([4]).words, 64)
    assert threading.active_count() == before + 4
    executor.close()
    executor.close()
    assert threading.active_count() == before
