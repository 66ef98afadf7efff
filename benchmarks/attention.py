"""Speed of the CPU's attention as shares of what this machine can do, measured in the same process.

    python -m benchmarks.attention [--types f16,q8_0] [--shapes 16x4,16x16] [--head-size 128] [--context 4096]

prints one JSON object; `--shapes` are query heads x kv heads. Decode (the next token of one sequence, in layers whose
caches together are larger than any cache of the CPU) is a share of a plain read of memory, and prefill (256
rows at the end of the context) a share of the peak of fused multiply-adds. One thread.
"""

from __future__ import annotations

import argparse
import json
import platform
from statistics import median

import numpy as np
from edgert_models.graph import Graph, Plan
from edgert_models.rope import Rope, RopeLayout
from edgert_models.spec import ModelSpec
from edgert_quant.blocks import BlockType, quantize
from edgert_quant.jit import host
from edgert_runtimes.base import Batch, Limits
from edgert_runtimes.cpu.backend import CpuBackend, CpuSession
from edgert_runtimes.cpu.formats import LANES
from edgert_runtimes.cpu.peaks import measure_peaks
from edgert_runtimes.weights import MemoryWeights

from benchmarks.machine import commit

ROWS = 256
CACHE_BYTES = 1 << 27
WIDTH = 64
FILL = 0x2C
"""Every byte of the cache: 0.065 as a half or a scale, and as a float nothing that slows a CPU down."""


def attention(heads: int, kv_heads: int, head_size: int, context: int, layers: int) -> tuple[Plan, MemoryWeights]:
    """Layers of nothing but attention, with small random weights."""
    rope = Rope(dims=head_size, layout=RopeLayout.HALVES)
    sizes = {"width": WIDTH, "layers": layers, "heads": heads, "kv_heads": kv_heads, "head_size": head_size}
    spec = ModelSpec(
        architecture="llama", vocabulary=LANES, context=context, norm_eps=1e-6, feed_forward=WIDTH, rope=rope, **sizes
    )
    graph = Graph(spec)
    x = graph.embed()
    for layer in range(layers):
        q, k, v = (
            graph.linear(x, f"{name}{layer}", count)
            for name, count in (("q", spec.query_width), ("k", spec.kv_width), ("v", spec.kv_width))
        )
        x = graph.linear(graph.attend(q, k, v), f"o{layer}", WIDTH)
    result = graph.pick_rows(x)
    plan = graph.plan(result, result)
    rng = np.random.default_rng(0)
    tensors = {}
    for name, weight in plan.weights.items():
        numbers = rng.standard_normal(weight.shape, dtype=np.float32) * np.float32(weight.shape[-1] ** -0.5)
        tensors[name] = (BlockType.F32, weight.shape, quantize(numbers, BlockType.F32))
    return plan, MemoryWeights(tensors)


def rows_at(first: int, count: int, context: int, block_size: int) -> Batch:
    """Rows of one sequence, on blocks in order."""
    positions = np.arange(first, first + count, dtype=np.int32)
    zeros, table = np.zeros(count, np.int32), np.arange(-(-context // block_size), dtype=np.int32)[None]
    return Batch(zeros, positions, zeros, positions, table, np.array([first + count], np.int32), np.zeros(1, np.int32))


def timed(session: CpuSession, batch: Batch, repeat: int) -> tuple[float, int, int]:
    """Seconds (the median), bytes and operations of all the attention of one step, storing not counted."""
    found = []
    for _ in range(repeat):
        session.profile(True)
        session.step(batch)
        items = [op for op in session.profile(False) if op.name.startswith("attend") and "store" not in op.name]
        found.append([sum(getattr(op, name) for op in items) for name in ("seconds", "bytes", "operations")])
    return median(seconds for seconds, *_ in found), *found[0][1:]


def measure(kv_type: str, shape: str, head_size: int, context: int) -> dict[str, object]:
    """One type of cache and shape."""
    heads, kv_heads = map(int, shape.split("x"))
    position = 2 * BlockType.parse(kv_type).row_bytes(kv_heads * head_size)
    layers = max(2, CACHE_BYTES // (position * context))
    plan, weights = attention(heads, kv_heads, head_size, context, layers)
    blocks = -(-context // Limits.block_size)
    limits = Limits(context=context, rows=ROWS, sequences=1, blocks=blocks, kv_type=kv_type, threads=1)
    session = CpuBackend().load(plan, weights, limits)
    session._cache[:] = FILL
    one, many = (rows_at(context - count, count, context, limits.block_size) for count in (1, ROWS))
    speeds, shares = [], []
    for _ in range(7):  # alternating: the machine's speed drifts
        seconds, read, _ = timed(session, one, 3)
        speeds.append(read / seconds)
        shares.append(speeds[-1] / measure_peaks(1).read_bytes)
    rates, prefill_shares = [], []
    for _ in range(3):
        seconds, _, operations = timed(session, many, 1)
        rates.append(operations / seconds)
        prefill_shares.append(rates[-1] / measure_peaks(1).float_operations)
    session.close()
    return {
        "kv_type": kv_type,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_size": head_size,
        "context": context,
        "decode_gb_per_second": round(median(speeds) / 1e9, 2),
        "decode_share_of_read_bandwidth": round(median(shares), 3),
        "decode_positions_per_microsecond": round(median(speeds) / position / 1e6, 2),
        "prefill_gflops_per_second": round(median(rates) / 1e9, 1),
        "prefill_share_of_peak": round(median(prefill_shares), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="f32,f16,bf16,q8_0,q4_0")
    parser.add_argument("--shapes", default="16x4,16x16")
    parser.add_argument("--head-size", type=int, default=128)
    parser.add_argument("--context", type=int, default=4096)
    arguments = parser.parse_args()
    results = [
        measure(kv_type, shape, arguments.head_size, arguments.context)
        for kv_type in arguments.types.split(",")
        for shape in arguments.shapes.split(",")
    ]
    machine = {"cpu": host().cpu, "machine": platform.machine(), "system": platform.system()}
    print(json.dumps({"commit": commit(), **machine, "results": results}, indent=1))


if __name__ == "__main__":
    main()
