"""Speed of the CPU's matmul kernels as shares of what this machine can do, measured in the same process.

    python -m benchmarks.matmul [--types q4_k,q8_0] [--threads 1,2] [--isa NAME]

prints one JSON object. Decode (one token) is a share of the read bandwidth of memory, over the packed bytes; prefill a
share of the peak of the multiplications it is made of: integer dot products of four, or fused multiply-adds. Loading
is the bytes of the file packed per second.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np
from edgert_quant.blocks import BlockType
from edgert_runtimes.cpu.formats import LANES, Format, available, format_for, host_isa, packed_types
from edgert_runtimes.cpu.peaks import Peaks, Workers, measure_peaks, touched

from benchmarks.machine import commit, machine

K = 4096
WEIGHT_BYTES = 1 << 28
TOKENS = 96
PREFILL_ROWS = 1024


def weights(packed: Format, rows: int) -> tuple[np.ndarray, float]:
    """Panels of random rows, repeated, and the seconds it took to pack them on one thread."""
    rng = np.random.default_rng(0)
    stride = packed.type.row_bytes(K)
    raw = rng.integers(0, 48, (LANES, stride), dtype=np.uint8)  # small bytes: no huge or undefined scales
    size = packed.panel_bytes(K)
    panels = touched(size * (rows // LANES))
    source, base = raw.ctypes.data, panels.ctypes.data

    def pack() -> None:
        for panel in range(rows // LANES):
            packed.pack(source, stride, LANES, K, base + panel * size)

    return panels, Workers(1).seconds([pack], 2)


def measure(packed: Format, workers: Workers, peaks: Peaks) -> dict[str, object]:
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
    peak = peaks.float_operations if packed.activation.direct else peaks.int8_operations
    operations = 2 * TOKENS * PREFILL_ROWS * K / prefill_seconds
    return {
        "type": packed.type.name.lower(),
        "activation": packed.activation.name,
        "isa": packed.isa.name,  # type: ignore[attr-defined]
        "threads": workers.threads,
        "decode_gb_per_second": round(n_panels * size / decode_seconds / 1e9, 2),
        "decode_share_of_read_bandwidth": round(n_panels * size / decode_seconds / peaks.read_bytes, 3),
        "prefill_gops_per_second": round(operations / 1e9, 1),
        "prefill_share_of_peak": round(operations / peak, 3),
        "pack_gb_per_second_one_thread": round(rows * packed.type.row_bytes(K) / packing / 1e9, 2),
        "quantize_ns_per_input_one_thread": round(quantize / whole * 1e9, 3),
        "bytes_per_file_byte": round(size / (LANES * packed.type.row_bytes(K)), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default=",".join(t.name.lower() for t in packed_types()))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--isa", default=host_isa().name, choices=[isa.name for isa in available()])
    arguments = parser.parse_args()
    isa = next(isa for isa in available() if isa.name == arguments.isa)
    limits, results = [], []
    for threads in map(int, arguments.threads.split(",")):
        workers = Workers(threads)
        peaks = measure_peaks(threads, isa)
        limits.append(
            {
                "threads": threads,
                "read_gb_per_second": round(peaks.read_bytes / 1e9, 2),
                "int8_gops_per_second": round(peaks.int8_operations / 1e9, 1),
                "float32_gflops_per_second": round(peaks.float_operations / 1e9, 1),
            }
        )
        for name in arguments.types.split(","):
            packed = format_for(BlockType.parse(name), isa)
            if packed is None:
                parser.error(f"{name} has no packed format")
            results.append(measure(packed, workers, peaks))
    report = {"commit": commit(), "machine": machine(), "k": K, "tokens": TOKENS, "limits": limits, "results": results}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
