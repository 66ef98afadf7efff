"""What this CPU can do at most, measured: bytes read from memory, and multiplications of the kind that kernels use.

What a kernel reaches is told as a share of these, measured in the same process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from edgert_quant.jit import Kernel, emit, host, ir_kernel
from llvmlite import ir
from numpy.typing import NDArray

from edgert_runtimes.cpu.formats import LANES, Isa, host_isa, vectors
from edgert_runtimes.cpu.formats.isa import SOURCES
from edgert_runtimes.cpu.formats.vectors import FLOATS, I32, WORDS, Value
from edgert_runtimes.memory import allocate

READ_BYTES = 1 << 28
"""Far more than caches hold."""
ROUNDS = 250_000
UNROLLED = 16
"""Products of each chain in a round: what comes with a round (its loop, widening sums) hardly counts."""
BITS = 4
"""Of the codes that are multiplied by bytes: the commonest."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """Limits of `threads` threads: bytes per second read from memory, and operations per second (a multiplication and
    an addition are two) on bytes, in integer dot products, and on float32, in fused multiply-adds.
    """

    threads: int
    read_bytes: float
    int8_operations: float
    float_operations: float


class Workers:
    """Calls on several threads at once, timed from the start of the first to the end of the last."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def seconds(self, calls: Sequence[Callable[[], object]], repeat: int = 5) -> float:
        """The best of several runs over all calls, each taken by whichever thread is free."""
        best = float("inf")
        for _ in range(repeat):
            start = time.perf_counter()
            if self.threads == 1:
                for call in calls:
                    call()
            else:
                list(self._pool.map(lambda call: call(), calls))
            best = min(best, time.perf_counter() - start)
        return best

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def measure_peaks(threads: int, isa: Isa | None = None) -> Peaks:
    """The limits of so many threads, in about half a second; the integer products are those of `isa`, by default the
    one in use. Nothing else should run meanwhile.
    """
    workers = Workers(threads)
    try:
        return Peaks(
            threads,
            _bandwidth(workers),
            _peak(workers, peak_kernel(isa or host_isa(), floats=False), 8 * LANES),
            _peak(workers, peak_kernel(isa or host_isa(), floats=True), 2 * LANES),
        )
    finally:
        workers.close()


def _bandwidth(workers: Workers) -> float:
    """Bytes per second."""
    buffer = touched(READ_BYTES)
    chunk = len(buffer) // (16 * workers.threads) // 1024 * 1024
    starts = range(0, len(buffer) - chunk + 1, chunk)
    calls = [lambda start=start: read_memory(buffer.ctypes.data + start, chunk) for start in starts]
    return len(starts) * chunk / workers.seconds(calls)


def _peak(workers: Workers, kernel: Kernel, operations: int) -> float:
    """Operations per second, `operations` for each instruction of 16 lanes."""
    values = [allocate(64 * (_chains() + 2)) for _ in range(workers.threads)]
    calls = [lambda value=value: kernel(value.ctypes.data, ROUNDS) for value in values]
    return workers.threads * ROUNDS * UNROLLED * _chains() * operations / workers.seconds(calls)


def touched(size: int) -> NDArray[np.uint8]:
    """Zeroed bytes from a cache line on, in memory of their own: unwritten pages would all be one page of zeros."""
    buffer = allocate(size)
    buffer[:] = 1
    buffer[:] = 0
    return buffer


AHEAD = 6144
"""Bytes from what is read to what is fetched."""


@ir_kernel()
def read_memory(b: ir.IRBuilder, address: Value, size: Value) -> Value:
    """Read `size` bytes, a multiple of 1024, fetching ahead; a number that depends on them all."""
    base = vectors.pointer(b, address)
    zero = ir.Constant(WORDS, [0] * LANES)
    with emit.loop(b, size, *[zero] * 4, step=1024) as each:
        sums = list(each.values)
        for line in range(16):
            place = vectors.step(b, base, each.index)
            vectors.fetch(b, vectors.step(b, place, AHEAD + 64 * line), 64)
            sums[line % 4] = b.add(sums[line % 4], vectors.load(b, place, 64 * line, WORDS, align=64))
        each.carry(*sums)
    total = emit.call(
        b, "llvm.vector.reduce.add.v16i32", I32, [b.add(b.add(*each.values[:2]), b.add(*each.values[2:]))]
    )
    return b.sext(total, ir.IntType(64))


def _chains() -> int:
    """Independent accumulators of 16 lanes: enough to hide the latency of a product, few enough for the registers."""
    return 12 if host().vector_bits >= 512 else 5


@cache
def peak_kernel(isa: Isa, floats: bool) -> Kernel:
    """(values, rounds): independent chains of the instruction that matmuls are made of."""
    chains = _chains()
    name = f"peak.{'float' if floats else 'codes'}.{isa.name}"

    @ir_kernel(name=name, key=(SOURCES, isa.name, floats, chains))
    def peak(b: ir.IRBuilder, values: Value, rounds: Value) -> None:
        base = vectors.pointer(b, values)
        kind = FLOATS if floats else WORDS
        factors = [vectors.load(b, base, 64 * i, kind) for i in range(chains + 2)]
        zero = emit.real(0.0, FLOATS) if floats else ir.Constant(WORDS, [0] * LANES)
        with emit.loop(b, rounds, *[zero] * chains) as each:
            sums = [value if floats else isa.start(b, value) for value in each.values]
            for i in range(UNROLLED):
                if floats:
                    sums = [vectors.fused(b, factors[i % chains], factors[-1], value) for value in sums]
                    continue
                # Inputs that change, so that no product is invariant: one more instruction for all chains.
                turn = vectors.splat(b, b.trunc(b.add(each.index, vectors.i64(i)), I32))
                words = [b.xor(factors[-1 - j], turn) for j in range(2 if isa.wide(BITS) else 1)]
                inputs = isa.inputs(b, words, BITS)
                operands = [isa.codes(b, f, BITS) for f in factors[:chains]]
                sums = [isa.dot4(b, value, codes, inputs, BITS) for codes, value in zip(operands, sums, strict=True)]
            if not floats:
                sums = [isa.total(b, value) for value in sums]
            each.carry(*sums)
        for i, value in enumerate(each.values):
            vectors.store(b, base, 64 * i, value)

    return peak
