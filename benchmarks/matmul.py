"""Speed of the CPU's matmul kernels as shares of what this machine can do, measured in the same process.

    python -m benchmarks.matmul [--types q4_k,q8_0] [--threads 1,2] [--isa NAME] [--inputs 4096] [--tokens 96]

prints one JSON object. Decode (one token) is a share of the read bandwidth of memory, over the bytes of the file;
prefill a share of the peak of the multiplications it is made of: integer dot products of four, or fused multiply-adds.
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

WEIGHT_BYTES = 1 << 28
PREFILL_ROWS = 1024


def weights(form: Format, rows: int, k: int) -> np.ndarray:
    """Random rows, repeated."""
    stride = form.type.row_bytes(k)
    raw = np.random.default_rng(0).integers(96, 112, (LANES, stride), dtype=np.uint8)  # scales are then normal numbers
    matrix = touched(rows * stride)
    matrix.reshape(-1, LANES, stride)[:] = raw
    return matrix


def measure(form: Format, workers: Workers, peaks: Peaks, k: int, together: int) -> dict[str, object]:
    """One format on some threads: matrices of `k` inputs, by one token and by some together."""
    stride = form.type.row_bytes(k)
    rows = max(PREFILL_ROWS, WEIGHT_BYTES // stride // LANES * LANES)
    matrix = weights(form, rows, k)
    base = matrix.ctypes.data
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((together, k), dtype=np.float32)
    rows_x = np.zeros((together, form.activation.bytes(k)), np.uint8)
    for source, target in zip(inputs, rows_x, strict=True):
        form.activation.quantize(source.ctypes.data, target.ctypes.data, k)
    outputs = np.zeros((together, rows), np.float32)
    xs = np.array([row.ctypes.data for row in rows_x])

    def product(first: int, count: int, tokens: int) -> Callable[[], object]:
        scratch = touched(form.scratch_bytes(k))
        ys = np.array([row.ctypes.data + 4 * first for row in outputs[:tokens]])
        arguments = (base + first * stride, count, xs.ctypes.data, ys.ctypes.data, tokens, k, scratch.ctypes.data)
        return lambda keep=(ys, scratch): form.gemm(*arguments)

    chunk = max(2, rows // LANES // 64) * LANES
    decode = [product(first, min(chunk, rows - first), 1) for first in range(0, rows, chunk)]
    decode_seconds = workers.seconds(decode)
    prefill = [product(first, 8 * LANES, together) for first in range(0, PREFILL_ROWS, 8 * LANES)]
    prefill_seconds = workers.seconds(prefill)
    whole = together * k  # one long row: activations of consecutive blocks lie one behind the other
    quantize = Workers(1).seconds([lambda: form.activation.quantize(inputs.ctypes.data, rows_x.ctypes.data, whole)])
    peak = peaks.float_operations if form.activation.direct else peaks.int8_operations
    operations = 2 * together * PREFILL_ROWS * k / prefill_seconds
    return {
        "type": form.type.name.lower(),
        "activation": form.activation.name,
        "isa": form.isa.name,  # type: ignore[attr-defined]
        "threads": workers.threads,
        "decode_gb_per_second": round(rows * stride / decode_seconds / 1e9, 2),
        "decode_share_of_read_bandwidth": round(rows * stride / decode_seconds / peaks.read_bytes, 3),
        "prefill_gops_per_second": round(operations / 1e9, 1),
        "prefill_share_of_peak": round(operations / peak, 3),
        "quantize_ns_per_input_one_thread": round(quantize / whole * 1e9, 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default=",".join(t.name.lower() for t in packed_types()))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--isa", default=host_isa().name, choices=[isa.name for isa in available()])
    parser.add_argument("--inputs", type=int, default=4096, help="a multiple of 256")
    parser.add_argument("--tokens", type=int, default=96, help="in prefill")
    arguments = parser.parse_args()
    k, tokens = arguments.inputs, arguments.tokens
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
            form = format_for(BlockType.parse(name), isa)
            if form is None:
                parser.error(f"{name} has no kernels")
            results.append(measure(form, workers, peaks, k, tokens))
    report = {"commit": commit(), "machine": machine(), "k": k, "tokens": tokens, "limits": limits, "results": results}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
