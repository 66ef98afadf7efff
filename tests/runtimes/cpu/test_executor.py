"""The walk through the table: every chunk once, records in order, whatever the number of threads."""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from edgert_quant.jit import kernel
from edgert_quant.jit.primitives import fetch_add, load_i64, store_i64
from edgert_runtimes.cpu.executor import Executor
from edgert_runtimes.cpu.kernels import table, waiting
from edgert_runtimes.cpu.kernels.table import CHUNKS, OPERANDS, STATUS
from edgert_runtimes.cpu.kernels.waiting import sleep_while

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


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that do nothing but burn time."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(0.2)
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_busy_neighbours_slow_steps_in_proportion() -> None:
    """Not a thousandfold, as where threads wait for one that does not run. CPU time shows spinning; wall-clock time is
    only bounded coarsely, as it depends on what else runs here.
    """
    program = Program([12] * 160)
    executor = Executor(2, program.words, 64)

    def measure() -> tuple[float, float]:
        """Seconds of CPU time of a step, and the median of wall-clock seconds."""
        times, begin = [], time.process_time()
        for _ in range(400):
            start = time.perf_counter()
            program.step(executor)
            times.append(time.perf_counter() - start)
        return (time.process_time() - begin) / 400, statistics.median(times)

    measure()
    quiet_cpu, quiet = measure()
    with hogs(2):
        busy_cpu, busy = measure()
    executor.close()
    assert program.faults[0] == 0
    assert busy_cpu < 3 * quiet_cpu + 1e-4
    assert busy < 50 * quiet


def test_idle_threads_use_no_cpu() -> None:
    executor = Executor(4, (program := Program([12] * 20)).words, 64)
    program.step(executor)
    time.sleep(0.05)  # they spin for a moment
    before = time.process_time()
    time.sleep(0.5)
    used = time.process_time() - before
    executor.close()
    assert used < 0.005


def test_naps_where_nobody_can_wake_sleepers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FUTEX", None)

    @kernel(name="test.nap")
    def nap(address: int, microseconds: int) -> None:
        sleep_while(address, 0, 0, microseconds)

    word = np.zeros(1, np.int64)
    start = time.perf_counter()
    nap(word.ctypes.data, 20_000)
    assert time.perf_counter() - start >= 0.02
