"""Speed and round-trip errors of the quantizers, beside llama.cpp's where its library is at hand, as JSON.

    python -m benchmarks.quantize [--types q4_k,q6_k] [--threads 1,2]

EDGERT_LLAMA_CPP_LIB names the folder of llama.cpp's libraries. Speeds are in million weights per second, the best of
several rounds in which the two take turns on the same weights, llama.cpp on one thread. Errors are rms errors as shares
of the rms of the weights, with importance weighted by it. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from edgert_quant.blocks import BlockType, dequantize, quantize

from benchmarks.machine import commit, machine
from tests.support.ggml import TYPES, Floats, Ggml, error, find, importance, samples

ROWS, COLUMNS = 256, 4096
ROUNDS = 5
SLOWEST_SECONDS = 2.0
"""A round stops being repeated when the rounds so far took this long."""


def seconds(*calls: Callable[[], object]) -> list[float]:
    """The shortest time of each call; the calls take turns."""
    for call in calls:
        call()
    best = [float("inf")] * len(calls)
    started = time.perf_counter()
    for _ in range(ROUNDS):
        for i, call in enumerate(calls):
            before = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - before)
        if time.perf_counter() - started > SLOWEST_SECONDS * len(calls):
            break
    return best


def speeds(kind: BlockType, weights: Floats | None, threads: list[int], ggml: Ggml | None) -> dict[str, float]:
    """Million weights per second."""
    x = samples(ROWS, COLUMNS)["gaussian"]
    calls: dict[str, Callable[[], object]] = {
        f"edgert_{count}_threads": lambda count=count: quantize(x, kind, importance=weights, threads=count)  # type: ignore[misc]
        for count in threads
    }
    if ggml is not None:
        calls["ggml_1_thread"] = lambda: ggml.quantize(x, kind, weights)
    return {name: round(x.size / value / 1e6, 1) for name, value in zip(calls, seconds(*calls.values()), strict=True)}


def errors(kind: BlockType, weights: Floats | None, ggml: Ggml | None) -> dict[str, dict[str, float]]:
    """By kind of weights: our error, ggml's, and their ratio."""
    found = {}
    for name, x in samples(64, COLUMNS).items():
        pair = {"edgert": error(x, quantize(x, kind, importance=weights), kind, weights)}
        if ggml is not None:
            pair["ggml"] = error(x, ggml.quantize(x, kind, weights), kind, weights)
            if pair["ggml"]:
                pair["ratio"] = pair["edgert"] / pair["ggml"]
        found[name] = {key: float(f"{value:.4g}") for key, value in pair.items()}
    return found


def reading(kind: BlockType) -> float:
    """Million weights per second that `dequantize` gives back."""
    data = quantize(samples(ROWS, COLUMNS)["gaussian"], kind)
    (best,) = seconds(lambda: dequantize(data, kind))
    return round(ROWS * COLUMNS / best / 1e6, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--types", default=",".join(kind.name.lower() for kind in TYPES))
    parser.add_argument("--threads", default="1,2")
    arguments = parser.parse_args()
    threads = [int(count) for count in arguments.threads.split(",")]
    ggml = find()
    results: dict[str, Any] = {}
    for name in arguments.types.split(","):
        kind = BlockType.parse(name)
        results[kind.name] = {
            "dequantize_mweights_per_second": reading(kind),
            **{
                label: {
                    "mweights_per_second": speeds(kind, weights, threads, ggml),
                    "errors": errors(kind, weights, ggml),
                }
                for label, weights in (("plain", None), ("weighted", importance(COLUMNS)))
            },
        }
    report = {"commit": commit(), "machine": machine(), "numpy": np.__version__, "results": results}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
