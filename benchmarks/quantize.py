"""Speed and round-trip errors of the quantizers, beside llama.cpp's where its library is at hand, as JSON.

    python -m benchmarks.quantize [--types q4_k,q6_k] [--threads 1,2]

EDGERT_LLAMA_CPP_LIB names the folder of llama.cpp's libraries. Speeds are in million weights per second, the best of
several rounds in which the two take turns on the same weights. On one thread that is a second of processor time, which
other work on the machine disturbs little, and `ratio` is the median over the rounds of llama.cpp's time divided by
ours; on several threads it is a second of the clock. Errors are rms errors as shares of the rms of the weights, with
importance weighted by it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from edgert_quant.blocks import BlockType, dequantize, quantize

from benchmarks.machine import commit, machine
from tests.support.ggml import TYPES, Floats, Ggml, error, find, importance, samples

ROWS, COLUMNS = 256, 4096
ROUNDS, FEWEST_ROUNDS = 25, 3
SLOWEST_SECONDS = 2.0
"""Rounds are not repeated when those so far took so long for each of the calls, but for the fewest."""


def rounds(*calls: Callable[[], object], clock: Callable[[], float] = time.thread_time) -> list[list[float]]:
    """Seconds of each call in each of several rounds; the calls take turns."""
    for call in calls:
        call()
    found: list[list[float]] = [[] for _ in calls]
    started = time.perf_counter()
    for done in range(ROUNDS):
        if done >= FEWEST_ROUNDS and time.perf_counter() - started > SLOWEST_SECONDS * len(calls):
            break
        for times, call in zip(found, calls, strict=True):
            before = clock()
            call()
            times.append(clock() - before)
    return found


def speeds(kind: BlockType, weights: Floats | None, threads: list[int], ggml: Ggml | None) -> dict[str, float]:
    """Million weights per second, and how many times as fast as llama.cpp that is."""
    x = samples(ROWS, COLUMNS)["gaussian"]

    def ours(count: int) -> Callable[[], object]:
        return lambda: quantize(x, kind, importance=weights, threads=count)

    def speed(times: list[float]) -> float:
        return round(x.size / min(times) / 1e6, 1)

    result = {}
    for count in threads:
        if count > 1:
            result[f"edgert_{count}_threads"] = speed(*rounds(ours(count), clock=time.perf_counter))
        elif ggml is None:
            result["edgert_1_thread"] = speed(*rounds(ours(1)))
        else:
            own, other = rounds(ours(1), lambda: ggml.quantize(x, kind, weights))
            result |= {"edgert_1_thread": speed(own), "ggml_1_thread": speed(other)}
            result["ratio"] = round(median(b / a for a, b in zip(own, other, strict=True)), 2)
    return result


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
    (times,) = rounds(lambda: dequantize(data, kind))
    return round(ROWS * COLUMNS / min(times) / 1e6, 1)


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
