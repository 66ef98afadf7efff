"""What the executor of the CPU backend costs, as JSON.

    python -m benchmarks.executor [--threads 1,2] [--hogs 2]

Microseconds of a record that does nothing, alone and with a barrier; of a decoding step of the bundled demo model, on a
quiet machine and beside processes that only burn time; and the CPU time used in half a second without a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from edgert_models import build_plan, spec_from_gguf
from edgert_quant.gguf import GgufFile
from edgert_quant.jit import host, kernel
from edgert_quant.jit.primitives import load_i64
from edgert_runtimes.base import Batch, Limits
from edgert_runtimes.cpu.backend import CpuBackend, CpuSession
from edgert_runtimes.cpu.executor import Executor
from edgert_runtimes.cpu.kernels import table
from edgert_runtimes.weights import GgufWeights

from edgert.resolve import resolve_model

RECORDS = 160
CHUNKS = table.OPERANDS
POSITION = 64
"""At which the demo model decodes."""


@kernel
def prepare_empty(state: int, record: int) -> int:
    """As many chunks as the record says."""
    return int(load_i64(record, CHUNKS))


@kernel
def run_empty(state: int, record: int, chunk: int, thread: int) -> None:
    """Nothing."""


def microseconds(run: Callable[[], object], repeat: int) -> dict[str, float]:
    """Of one run: the least, the median and the mean."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e6)
    kinds = {"least": min, "median": statistics.median, "mean": statistics.fmean}
    return {name: round(function(times), 2) for name, function in kinds.items()}


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that keep a core busy each."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(count)]
    time.sleep(0.3)
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def empty_records(threads: int, chunks: int) -> dict[str, float]:
    """Microseconds of one record of so many empty chunks, in a table of RECORDS of them."""
    words = np.zeros((RECORDS, table.RECORD_WORDS), np.int64)
    words[:, table.RUN], words[:, table.PREPARE] = run_empty.address, prepare_empty.address
    words[:, CHUNKS] = chunks
    executor = Executor(threads, words, 64)
    whole = microseconds(lambda: executor.run(RECORDS), 500)
    executor.close()
    return {name: round(value / RECORDS, 3) for name, value in whole.items()}


@contextmanager
def demo_session(threads: int) -> Iterator[CpuSession]:
    """The bundled model, loaded."""
    with GgufFile.open(resolve_model(None)) as file:
        spec = spec_from_gguf(file.metadata, {name: tensor.shape for name, tensor in file.tensors.items()})
        limits = Limits(context=256, rows=16, sequences=1, blocks=16, threads=threads)
        session = CpuBackend().load(build_plan(spec), GgufWeights(file), limits)
        try:
            yield session
        finally:
            session.close()


def decoding() -> Batch:
    """One row; what it attends to may be anything."""
    columns = [[5], [POSITION], [0], [POSITION], [list(range(16))], [POSITION + 1], [0]]
    return Batch(*(np.array(column, np.int32) for column in columns))


def idle_milliseconds() -> float:
    """CPU time that this process uses in half a second of sleep."""
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    return round((time.process_time() - before) * 1e3, 2)


def measure(session: CpuSession, threads: int, burning: int) -> dict[str, object]:
    """Everything with some threads."""
    batch = decoding()
    session.step(batch)
    quiet = microseconds(lambda: session.step(batch), 1000)
    idle = idle_milliseconds()
    with hogs(burning):
        busy = microseconds(lambda: session.step(batch), 1000)
    return {
        "threads": threads,
        "record_of_one_chunk_microseconds": empty_records(threads, 1),
        "record_of_twelve_chunks_microseconds": empty_records(threads, 12),
        "demo_step_microseconds": quiet,
        "idle_cpu_milliseconds_in_500": idle,
        f"demo_step_beside_{burning}_hogs_microseconds": busy,
        "hogs_slow_the_median_by": round(busy["median"] / quiet["median"], 2),
        "hogs_slow_the_mean_by": round(busy["mean"] / quiet["mean"], 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--hogs", type=int, default=2)
    arguments = parser.parse_args()
    results = []
    for threads in map(int, arguments.threads.split(",")):
        with demo_session(threads) as session:
            results.append(measure(session, threads, arguments.hogs))
    print(json.dumps({"cpu": host().cpu, "results": results}, indent=1))


if __name__ == "__main__":
    main()
