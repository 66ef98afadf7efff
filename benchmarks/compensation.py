"""What compensated rounding gains on tokens that it has not seen, by tokens per expert, as JSON; and its speed.

    python -m benchmarks.compensation [--types q2_k,q3_k] [--columns 768] [--rows 128] [--markdown]

Weights are Gaussian. Inputs are what an expert gets: three of the 32 clusters that the layer's tokens fall into, with
means and directions of their own, above components that all tokens share, whose standard deviations fall as k^-decay
(`weak`: 0.25, `strong`: 0.9) on columns of different sizes. Figures are errors of outputs, tr(E H Eᵀ) on 4096 further
tokens of the expert, divided by those of plain rounding with the diagonal of the layer's covariance as importance:

    own        compensated, by the covariance of the expert's own tokens
    diagonal   the same with its off-diagonal elements shrunk to a fifth
    pool       by the covariance of all the layer's tokens
    mixed      by half of both, off-diagonal elements shrunk to 0.7
    chosen     what `choose_shrink` chooses on a quarter as many tokens (at least 32) that are in no covariance
    alone      the same without a pool
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.compensation import (
    Feedback,
    candidates,
    choose_shrink,
    compensate,
    output_errors,
    shrunk,
)
from numpy.typing import NDArray

from benchmarks.machine import commit, machine

DECAYS = {"weak": 0.25, "strong": 0.9}
TOKENS = (32, 128, 512, 2048)
CLUSTERS, MINE, DIRECTIONS, SPREAD = 32, 3, 24, 0.5
TEST_TOKENS = 4096

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]


class Layer:
    """Where tokens come from."""

    def __init__(self, columns: int, decay: float, seed: int = 5) -> None:
        self.random = np.random.default_rng(seed)
        normal = self.random.standard_normal
        power = np.arange(1, columns + 1) ** -decay
        basis = np.linalg.qr(normal((columns, columns)))[0]
        self.mixing = np.sqrt(power / power.mean())[:, None] * basis * np.exp(0.5 * normal(columns))
        self.centers = SPREAD * normal((CLUSTERS, columns)) @ self.mixing
        self.own = SPREAD / np.sqrt(DIRECTIONS) * normal((CLUSTERS, DIRECTIONS, columns)) @ self.mixing

    def covariance(self, tokens: int, clusters: int) -> Doubles:
        """Of tokens of the first clusters."""
        x = self.random.standard_normal((tokens, len(self.mixing))) @ self.mixing
        cluster = self.random.integers(0, clusters, tokens)
        x += self.centers[cluster]
        for k in range(clusters):
            mine = cluster == k
            x[mine] += self.random.standard_normal((int(mine.sum()), DIRECTIONS)) @ self.own[k]
        return np.asarray(x.T @ x)


def gains(kind: BlockType, x: Floats, layer: Layer, tokens: int) -> dict[str, float]:
    """One row of the table."""
    own = layer.covariance(tokens, MINE)
    held = layer.covariance(max(32, tokens // 4), MINE)
    test = layer.covariance(TEST_TOKENS, MINE)
    pool = layer.covariance(4 * x.shape[1], CLUSTERS)

    def error(data: NDArray[np.uint8]) -> float:
        return float(output_errors(x - dequantize(data, kind), test).sum())

    plain = error(quantize(x, kind, importance=pool.diagonal()))
    fixed = {
        "own": own,
        "diagonal": shrunk(own, None, 0.0, 0.8),
        "pool": pool,
        "mixed": shrunk(own, pool, 0.5, 0.3),
    }
    found = {name: error(compensate(x, kind, covariance)) for name, covariance in fixed.items()}
    found["chosen"] = error(choose_shrink(x, kind, candidates(own, pool), held).data)
    found["alone"] = error(choose_shrink(x, kind, candidates(own), held).data)
    return {name: round(value / plain, 3) for name, value in found.items()}


def speed(kind: BlockType, rows: int, columns: int) -> dict[str, float]:
    """Seconds of wall and processor time for one matrix, and wall time of preparing its covariance."""
    random = np.random.default_rng(0)
    x = (0.02 * random.standard_normal((rows, columns))).astype(np.float32)
    inputs = random.standard_normal((2 * columns, columns)).astype(np.float32)
    covariance = inputs.T @ inputs
    before = time.perf_counter()
    feedback = Feedback(covariance)
    prepared = time.perf_counter() - before
    compensate(x[:1], kind, feedback)
    before, busy = time.perf_counter(), time.process_time()
    compensate(x, kind, feedback)
    return {
        "prepare_seconds": round(prepared, 2),
        "seconds": round(time.perf_counter() - before, 2),
        "processor_seconds": round(time.process_time() - busy, 2),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    names = [name for name in rows[0] if name not in ("type", "correlation", "tokens")]
    head = f"| type | correlation | tokens | {' | '.join(names)} |\n|{'---|' * (3 + len(names))}"
    lines = []
    for row in rows:
        figures = " | ".join(f"{row[name]:.2f}" for name in names)
        lines.append(f"| {row['type']} | {row['correlation']} | {row['tokens']} | {figures} |")
    return "\n".join([head, *lines])


def main() -> None:
    """Print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="q2_k,q3_k,q4_k,iq4_xs")
    parser.add_argument("--columns", type=int, default=768)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--markdown", action="store_true", help="the table of docs/quantization.md instead of JSON")
    chosen = parser.parse_args()
    kinds = [BlockType.parse(name) for name in chosen.types.split(",")]
    x = (0.02 * np.random.default_rng(1).standard_normal((chosen.rows, chosen.columns))).astype(np.float32)
    rows = []
    for kind in kinds:
        for correlation, decay in DECAYS.items():
            for tokens in TOKENS:
                figures = gains(kind, x, Layer(chosen.columns, decay), tokens)
                rows.append({"type": kind.name, "correlation": correlation, "tokens": tokens, **figures})
    if chosen.markdown:
        print(table(rows))
        return
    speeds = {kind.name: speed(kind, 1024, 2048) for kind in kinds}
    print(json.dumps({"commit": commit(), "machine": machine(), "errors": rows, "speed": speeds}, indent=1))


if __name__ == "__main__":
    main()
