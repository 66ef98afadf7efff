"""Speed of the CPU's matmul kernels as shares of what this machine can do, measured in the same process.

    python benchmarks/matmul.py [--types q4_k,q8_0] [--threads 1,2] [--isa NAME]

prints one JSON object. Decode (one token) is a share of the read bandwidth of memory, over the packed bytes; prefill a
share of the peak of the multiplications it is made of: integer dot products of four, or fused multiply-adds. Loading
is the bytes of the file packed per second.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from edgert_quant.blocks import BlockType
from edgert_quant.jit import Kernel, emit, host, ir_kernel
from edgert_runtimes.cpu.formats import (
    LANES,
    PANEL_ALIGNMENT,
    Format,
    Isa,
    available,
    format_for,
    host_isa,
    packed_types,
    vectors,
)
from edgert_runtimes.cpu.formats.isa import SOURCES
from edgert_runtimes.cpu.formats.vectors import FLOATS, I32, WORDS
from llvmlite import ir

K = 4096
READ_BYTES = 1 << 28
WEIGHT_BYTES = 1 << 28
TOKENS = 96
PREFILL_ROWS = 1024
BITS = 4
CHAINS = 12 if host().vector_bits >= 512 else 5
"""Independent accumulators of 16 lanes: enough to hide the latency of a multiplication, few enough for registers."""


@ir_kernel()
def read_memory(b, address, size):
    """Read `size` bytes, a multiple of 1024, with the prefetches of the kernels; a number that depends on them all."""
    base = vectors.pointer(b, address)
    zero = ir.Constant(WORDS, [0] * LANES)
    with emit.loop(b, size, *[zero] * 4, step=1024) as each:
        sums = list(each.values)
        for line in range(16):
            place = vectors.step(b, base, each.index)
            vectors.prefetch(b, place, 64 * line, 1)
            sums[line % 4] = b.add(sums[line % 4], vectors.load(b, place, 64 * line, WORDS, align=64))
        each.carry(*sums)
    total = emit.call(
        b, "llvm.vector.reduce.add.v16i32", I32, [b.add(b.add(*each.values[:2]), b.add(*each.values[2:]))]
    )
    return b.sext(total, ir.IntType(64))


def peak_kernel(isa: Isa, floats: bool) -> Kernel:
    """(values, rounds): CHAINS independent chains of the instruction that matmuls are made of."""

    @ir_kernel(name=f"peak.{'float' if floats else 'codes'}.{isa.name}", key=(SOURCES, isa.name, floats))
    def peak(b, values, rounds):
        base = vectors.pointer(b, values)
        kind = FLOATS if floats else WORDS
        factors = [vectors.load(b, base, 64 * i, kind) for i in range(CHAINS + 2)]
        zero = emit.real(0.0, FLOATS) if floats else ir.Constant(WORDS, [0] * LANES)
        with emit.loop(b, rounds, *[zero] * CHAINS) as each:
            sums = [value if floats else isa.start(b, value) for value in each.values]
            for i in range(4):
                if floats:
                    sums = [vectors.fused(b, factors[i], factors[-1], value) for value in sums]
                    continue
                # Inputs that change, so that no product is invariant: one more instruction for all chains.
                turn = vectors.splat(b, b.trunc(b.add(each.index, vectors.i64(i)), I32))
                words = [b.xor(factors[-1 - j], turn) for j in range(2 if isa.wide(BITS) else 1)]
                inputs = isa.inputs(b, words, BITS)
                operands = [isa.codes(b, f, BITS) for f in factors[:CHAINS]]
                sums = [isa.dot4(b, value, codes, inputs, BITS) for codes, value in zip(operands, sums, strict=True)]
            if not floats:
                sums = [isa.total(b, value) for value in sums]
            each.carry(*sums)
        for i, value in enumerate(each.values):
            vectors.store(b, base, 64 * i, value)

    return peak


def aligned(size: int) -> np.ndarray:
    """Zeroed bytes, touched, at a multiple of 64."""
    buffer = np.ones(size + PANEL_ALIGNMENT, np.uint8)
    buffer[:] = 0
    start = -buffer.ctypes.data % PANEL_ALIGNMENT
    return buffer[start : start + size]


class Workers:
    """Calls on several threads at once, timed from the start of the first to the end of the last."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)

    def seconds(self, calls: list[Callable[[], object]], repeat: int = 5) -> float:
        """The best of several runs over all calls, each taken by whichever thread is free."""
        best = float("inf")
        for _ in range(repeat):
            start = time.perf_counter()
            if self.threads == 1:
                for call in calls:
                    call()
            else:
                list(self.pool.map(lambda call: call(), calls))
            best = min(best, time.perf_counter() - start)
        return best


def bandwidth(workers: Workers, buffer: np.ndarray) -> float:
    """Bytes per second read."""
    chunk = len(buffer) // (16 * workers.threads) // 1024 * 1024
    starts = range(0, len(buffer) - chunk + 1, chunk)
    calls = [lambda start=start: read_memory(buffer.ctypes.data + start, chunk) for start in starts]
    return len(starts) * chunk / workers.seconds(calls)


def peak(workers: Workers, kernel: Kernel, operations: int) -> float:
    """Operations per second, `operations` per instruction of 16 lanes."""
    values = [aligned(64 * (CHAINS + 2)) for _ in range(workers.threads)]
    rounds = 1_000_000
    calls = [lambda value=value: kernel(value.ctypes.data, rounds) for value in values]
    return workers.threads * rounds * 4 * CHAINS * operations / workers.seconds(calls)


def weights(packed: Format, rows: int) -> tuple[np.ndarray, float]:
    """Panels of random rows, repeated, and the seconds it took to pack them on one thread."""
    rng = np.random.default_rng(0)
    stride = packed.type.row_bytes(K)
    raw = rng.integers(96, 112, (LANES, stride), dtype=np.uint8)  # scales of any form are then normal numbers
    size = packed.panel_bytes(K)
    panels = aligned(size * (rows // LANES))
    source, base = raw.ctypes.data, panels.ctypes.data

    def pack() -> None:
        for panel in range(rows // LANES):
            packed.pack(source, stride, LANES, K, base + panel * size)

    return panels, Workers(1).seconds([pack], 2)


def measure(packed: Format, workers: Workers, read: float, peaks: dict[str, float]) -> dict[str, object]:
    """One format on some threads."""
    size = packed.panel_bytes(K)
    rows = max(PREFILL_ROWS, WEIGHT_BYTES // size * LANES)
    panels, packing = weights(packed, rows)
    n_panels = rows // LANES
    base = panels.ctypes.data
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((TOKENS, K), dtype=np.float32)
    rows_x = np.zeros((TOKENS, packed.activation.bytes(K)), np.uint8)
    for source, target in zip(inputs, rows_x, strict=True):
        packed.activation.quantize(source.ctypes.data, target.ctypes.data, K)
    outputs = np.zeros((TOKENS, rows), np.float32)
    xs = np.array([row.ctypes.data for row in rows_x])

    def product(first: int, count: int, tokens: int) -> Callable[[], object]:
        ys = np.array([row.ctypes.data + 4 * LANES * first for row in outputs[:tokens]])
        arguments = (base + first * size, count, xs.ctypes.data, ys.ctypes.data, tokens, K)
        return lambda keep=ys: packed.gemm(*arguments)

    chunk = max(2, n_panels // 64)
    decode = [product(first, min(chunk, n_panels - first), 1) for first in range(0, n_panels, chunk)]
    decode_seconds = workers.seconds(decode)
    prefill = [product(first, 8, TOKENS) for first in range(0, PREFILL_ROWS // LANES, 8)]
    prefill_seconds = workers.seconds(prefill)
    whole = TOKENS * K  # one long row: activations of consecutive blocks lie one behind the other
    quantize = Workers(1).seconds([lambda: packed.activation.quantize(inputs.ctypes.data, rows_x.ctypes.data, whole)])
    kind = "float" if packed.activation.direct else "codes"
    operations = 2 * TOKENS * PREFILL_ROWS * K / prefill_seconds
    return {
        "type": packed.type.name.lower(),
        "activation": packed.activation.name,
        "isa": packed.isa.name,  # type: ignore[attr-defined]
        "threads": workers.threads,
        "decode_gb_per_second": round(n_panels * size / decode_seconds / 1e9, 2),
        "decode_share_of_read_bandwidth": round(n_panels * size / decode_seconds / read, 3),
        "prefill_gops_per_second": round(operations / 1e9, 1),
        "prefill_share_of_peak": round(operations / peaks[kind], 3),
        "pack_gb_per_second_one_thread": round(rows * packed.type.row_bytes(K) / packing / 1e9, 2),
        "quantize_ns_per_input_one_thread": round(quantize / whole * 1e9, 3),
        "bytes_per_file_byte": round(size / (LANES * packed.type.row_bytes(K)), 3),
    }


def commit() -> str | None:
    """The commit of the sources, if they lie in a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default=",".join(t.name.lower() for t in packed_types()))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--isa", default=host_isa().name, choices=[isa.name for isa in available()])
    arguments = parser.parse_args()
    isa = next(isa for isa in available() if isa.name == arguments.isa)
    buffer = aligned(READ_BYTES)
    limits, results = [], []
    for threads in map(int, arguments.threads.split(",")):
        workers = Workers(threads)
        read = bandwidth(workers, buffer)
        peaks = {
            "codes": peak(workers, peak_kernel(isa, floats=False), 8 * LANES),
            "float": peak(workers, peak_kernel(isa, floats=True), 2 * LANES),
        }
        limits.append(
            {
                "threads": threads,
                "read_gb_per_second": round(read / 1e9, 2),
                "int8_gops_per_second": round(peaks["codes"] / 1e9, 1),
                "float32_gflops_per_second": round(peaks["float"] / 1e9, 1),
            }
        )
        for name in arguments.types.split(","):
            packed = format_for(BlockType.parse(name), isa)
            if packed is None:
                parser.error(f"{name} has no packed format")
            results.append(measure(packed, workers, read, peaks))
    machine = {"cpu": host().cpu, "machine": platform.machine(), "system": platform.system()}
    print(
        json.dumps(
            {"commit": commit(), **machine, "k": K, "tokens": TOKENS, "limits": limits, "results": results}, indent=1
        )
    )


if __name__ == "__main__":
    main()
