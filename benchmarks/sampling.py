"""What choosing a token costs, at the vocabulary of a real model, as JSON.

    python -m benchmarks.sampling [--vocabulary 151936] [--rows 8] [--history 4096] [--step-ms 50]

For several chains of samplers: microseconds a row (the median over many draws), and the share of a decode step of one
row that takes `--step-ms`: by default what a CPU needs for 3 billion active parameters of 4 bits at 35 GB/s.

The logits are those of a made-up model that is neither sure nor lost: likely tokens over a broad tail. Chains that are
"lost" see the tail alone, where cuts keep most of the vocabulary: the worst there is. Histories repeat themselves now
and then, so that penalties and DRY have work to do.
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.machine import commit, machine
from edgert.engine.params import SamplingParams
from edgert.engine.sampling import Breakers, Sampler

NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
CHAINS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "default": {},
    "default with penalties": {"repetition_penalty": 1.1, "presence_penalty": 0.1},
    "default with DRY": {"dry_multiplier": 0.8},
    "default with DRY and XTC": {"dry_multiplier": 0.8, "xtc_probability": 0.5},
    "temperature only": NEUTRAL | {"temperature": 0.8},
    "top-p only": NEUTRAL | {"top_p": 0.95},
    "min-p only": NEUTRAL | {"min_p": 0.05},
    "typical-p only": NEUTRAL | {"typical_p": 0.9},
    "top-n-sigma only": NEUTRAL | {"top_n_sigma": 1.0},
    "dynamic temperature only": NEUTRAL | {"dynatemp_range": 0.5},
    "mirostat 1": {"mirostat": 1},
    "mirostat 2": {"mirostat": 2},
    "lost, top-p only": NEUTRAL | {"top_p": 0.95},
    "lost, typical-p only": NEUTRAL | {"typical_p": 0.9},
    "everything": {
        "repetition_penalty": 1.1,
        "dry_multiplier": 0.8,
        "top_n_sigma": 2.0,
        "typical_p": 0.95,
        "xtc_probability": 0.5,
        "dynatemp_range": 0.3,
    },
}
DRAWS = 60


def logits_of(rows: int, vocabulary: int, likely: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    logits = generator.normal(0.0, 2.5, (rows, vocabulary))
    for row in logits:
        row[generator.integers(0, vocabulary, likely)] += np.linspace(17, 6, likely)
    return logits.astype(np.float32)


def history_of(length: int, vocabulary: int) -> list[int]:
    """Phrases of eight tokens, out of a hundred, and a last one that is begun again."""
    generator = np.random.default_rng(1)
    phrases = generator.integers(0, vocabulary, (100, 8))
    tokens = phrases[generator.integers(0, 100, length // 8 + 1)].ravel()
    return [int(token) for token in [*tokens[: length - 5], *phrases[0][:5]]]


def measure(params: dict[str, Any], logits: np.ndarray, history: list[int], breakers: Breakers) -> float:
    """Microseconds a row: all rows of a step, one after the other, as the engine does."""
    rows, vocabulary = logits.shape
    samplers = [
        Sampler(SamplingParams(seed=row, **params), vocabulary=vocabulary, breakers=breakers) for row in range(rows)
    ]
    histories = [list(history) for _ in range(rows)]
    times = []
    for _ in range(DRAWS):
        begin = perf_counter()
        for sampler, row, tokens in zip(samplers, logits, histories, strict=True):
            tokens.append(sampler.choose(row, tokens).token)
        times.append((perf_counter() - begin) / rows * 1e6)
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--history", type=int, default=4096)
    parser.add_argument("--step-ms", type=float, default=50.0)
    options = parser.parse_args()
    logits, lost = (logits_of(options.rows, options.vocabulary, likely) for likely in (40, 0))
    history = history_of(options.history, options.vocabulary)
    pieces = [b"\n" if token % 5000 == 0 else b"word" for token in range(options.vocabulary)]
    breakers = Breakers.find(SamplingParams().dry_sequence_breakers, pieces)
    chains = {}
    for name, params in CHAINS.items():
        each = measure(params, lost if name.startswith("lost") else logits, history, breakers)
        step = options.step_ms * 1e3
        chains[name] = {
            "microseconds_per_row": round(each, 1),
            "share_of_step": round(each / step, 5),
        }
    found = {"commit": commit(), "machine": machine(), **vars(options), "chains": chains}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
