"""Speed of the CPU's recurrences, in the shapes of Qwen3-Next's delta rule and of Mamba 2.

    python -m benchmarks.recurrent [--rows 1,512] [--layers 4] [--repeat 5]

prints one JSON object: for every op and number of rows of one sequence the time of a row and layer, and products
(multiply-adds over the state) as a share of the peak of fused multiply-adds. One thread.
"""

from __future__ import annotations

import argparse
import json
from statistics import median

import numpy as np
from edgert_models.graph import Graph, Plan
from edgert_models.ops import Value
from edgert_models.spec import Recurrence
from edgert_runtimes.base import Batch, Limits
from edgert_runtimes.conformance.cases import with_values
from edgert_runtimes.conformance.tiny import random_weights, tiny_spec
from edgert_runtimes.cpu.backend import CpuBackend
from edgert_runtimes.cpu.peaks import measure_peaks

from benchmarks.machine import commit, machine

KERNEL = 4
NAMES = {"delta_rule": "Qwen3-Next", "scan": "Mamba 2"}
SIZES = {
    "delta_rule": Recurrence(layers=(True, True), kernel=KERNEL, inner=4096, state=128, heads=32, groups=16),
    "scan": Recurrence(layers=(True, True), kernel=KERNEL, inner=4096, state=128, heads=64, groups=8),
}
PASSES = {"delta_rule": 4, "scan": 3}
"""Multiplications of every number of the state."""


def layer(graph: Graph, op: str, x: Value, number: int) -> Value:
    """One op and what it needs."""
    sizes, name = SIZES[op], f"blk.{number}"

    def linear(part: str, width: int) -> Value:
        return graph.linear(x, f"{name}.{part}", width)

    if op == "delta_rule":
        qkv = linear("qkv", 2 * sizes.groups * sizes.state + sizes.inner)
        out = graph.delta_rule(qkv, linear("a", sizes.heads), linear("b", sizes.heads), name)
    else:
        b, c = (linear(part, sizes.groups * sizes.state) for part in "bc")
        out = graph.scan(linear("x", sizes.inner), linear("t", sizes.heads), b, c, name)
    return graph.linear(out, f"{name}.out", x.width)


def plan_of(op: str, layers: int) -> Plan:
    """Layers of nothing else."""
    graph = Graph(tiny_spec(context=4096, recurrence=SIZES[op]))
    x = graph.embed()
    for number in range(layers):
        x = graph.add(x, layer(graph, op, x, number))
    result = graph.pick_rows(x)
    return graph.plan(result, result)


def measure(op: str, rows: int, layers: int, repeat: int, peak: float) -> dict[str, object]:
    """One op and number of rows, beside so many float operations a second."""
    plan = plan_of(op, layers)
    decays = {n: -np.ones(w.shape, np.float32) for n, w in plan.weights.items() if n.endswith("ssm_a")}
    weights = with_values(random_weights(plan), decays)
    limits = Limits(context=4096, rows=512, sequences=1, blocks=4096 // Limits.block_size, states=2, threads=1)
    session = CpuBackend().load(plan, weights, limits)
    positions, zeros = np.arange(rows, dtype=np.int32), np.zeros(rows, np.int32)
    table = np.arange(limits.blocks, dtype=np.int32)[None]
    one = np.zeros(1, np.int32)
    batch = Batch(
        zeros, positions, zeros, positions, table, np.array([rows], np.int32), one, state_from=one, state_to=one
    )
    found = []
    for _ in range(repeat):
        session.profile(True)
        session.step(batch)
        seconds = sum(each.seconds for each in session.profile(False) if op in each.name.split()[0])
        found.append(seconds / rows / layers)
    session.close()
    operations = 2 * PASSES[op] * SIZES[op].inner * SIZES[op].state
    return {
        "op": op,
        "shape": NAMES[op],
        "rows": rows,
        "microseconds_per_row": round(median(found) * 1e6, 2),
        "fastest": round(min(found) * 1e6, 2),
        "share_of_float_peak": round(operations / median(found) / peak, 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1,512")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    peak = measure_peaks(1).float_operations
    results = [
        measure(op, int(rows), arguments.layers, arguments.repeat, peak)
        for op in SIZES
        for rows in arguments.rows.split(",")
    ]
    print(json.dumps({"commit": commit(), "machine": machine(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
