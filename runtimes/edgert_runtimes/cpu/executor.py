"""The threads that walk the table, and the state they share."""

from __future__ import annotations

import os
import threading

import numpy as np
from edgert_models.errors import BackendError
from numpy.typing import NDArray

from edgert_runtimes.cpu.cores import core_count
from edgert_runtimes.cpu.kernels import table
from edgert_runtimes.cpu.kernels.executor import IDLE, run_step, run_worker, stop_workers
from edgert_runtimes.memory import allocate

SPIN_ROUNDS = 2000
"""Rounds a waiting thread spins before it sleeps, where every thread has a core: some tens of microseconds."""


class Executor:
    """Runs tables. Thread 0 is whoever calls `run`; the others wait in compiled code between steps, asleep."""

    def __init__(self, threads: int, records: NDArray[np.int64], scratch_bytes: int) -> None:
        self._memory = allocate(8 * table.STATE_WORDS)
        self.state = self._memory.view(np.int64)
        self._records = records
        self._scratch = allocate(threads * scratch_bytes)
        self.state[table.TICKET] = IDLE
        self.state[table.TABLE] = records.ctypes.data
        self.state[table.THREADS] = threads
        self.state[table.SCRATCH] = self._scratch.ctypes.data
        self.state[table.SCRATCH_BYTES] = scratch_bytes
        self.state[table.SPIN] = SPIN_ROUNDS if threads <= core_count() else 1
        self.address = int(self.state.ctypes.data)
        self._process = os.getpid()
        self._workers = [
            threading.Thread(target=run_worker, args=(self.address, i), name=f"edgert-cpu-{i}", daemon=True)
            for i in range(1, threads)
        ]
        for worker in self._workers:
            worker.start()

    def check_process(self) -> None:
        """BackendError in a forked child, where the threads do not exist."""
        if os.getpid() != self._process:
            raise BackendError(
                "this session was loaded before the process forked, and its threads did not come along: "
                "load the model in the child, or start it by spawn"
            )

    def run(self, records: int) -> int:
        """Run the first `records` records; the status (see `table.STATUS`)."""
        self.state[table.RECORDS] = records
        return run_step(self.address)

    def close(self) -> None:
        """Stop the threads and wait until they are gone."""
        if os.getpid() == self._process and self._workers:
            stop_workers(self.address)
            for worker in self._workers:
                worker.join()
        self._workers = []
