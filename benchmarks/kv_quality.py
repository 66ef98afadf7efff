"""What each type of cache costs in quality: how far a model's answers move from those with a cache in F32, as JSON.

    python -m benchmarks.kv_quality [MODEL] [--text FILE] [--tokens 8192] [--window 1024] [--types f16,q8_0]

MODEL is what `edgert.LLM` takes, by default the bundled demo model; FILE is plain text, by default what was kept from
the demo model's training. For every type: the mean Kullback-Leibler divergence of the next token's distribution in
nats, the largest of one token, the share of tokens whose likeliest successor stays the same, perplexity, and the bytes
that one position takes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from edgert_models import build_plan
from edgert_runtimes.kv_types import KV_TYPES
from numpy.typing import NDArray

import edgert
from benchmarks.matmul import commit
from edgert.windows import log_softmax

EXACT = "f32"


def pieces(llm: edgert.LLM, text: str | None, tokens: int, window: int) -> list[list[int]]:
    """The text in windows of token ids, `tokens` in all."""
    if text is None:
        from demo.corpus.text import held_out_text

        text = "\n\n".join(held_out_text())
    ids = llm.tokenize(text, add_special=False)[:tokens]
    return [ids[start : start + window] for start in range(0, len(ids), window) if start + 1 < len(ids)]


def log_probabilities(llm: edgert.LLM, ids: list[int]) -> NDArray[np.float64]:
    """[tokens, vocabulary]: of what follows each token."""
    return log_softmax(llm.logits(ids))


def compare(exact: edgert.LLM, llm: edgert.LLM, windows: list[list[int]]) -> dict[str, float]:
    """The figures of one type."""
    divergences, same, losses = [], [], []
    for ids in windows:
        p, q = (log_probabilities(model, ids) for model in (exact, llm))
        divergences.append((np.exp(p) * (p - q)).sum(axis=-1))
        same.append(p.argmax(axis=-1) == q.argmax(axis=-1))
        losses.append(-q[np.arange(len(ids) - 1), ids[1:]])
    divergence = np.concatenate(divergences)
    return {
        "mean_kl_divergence": float(f"{divergence.mean():.3g}"),
        "largest_kl_divergence": float(f"{divergence.max():.3g}"),
        "same_likeliest_token": round(float(np.concatenate(same).mean()), 5),
        "perplexity": round(float(np.exp(np.concatenate(losses).mean())), 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--types", default=",".join(KV_TYPES))
    options = parser.parse_args()
    text = None if options.text is None else options.text.read_text(encoding="utf-8")
    results = []
    with edgert.LLM(options.model, context=options.window, kv_type=EXACT, sequences=1) as exact:
        windows = pieces(exact, text, options.tokens, options.window)
        caches = build_plan(exact.spec).caches
        for name in options.types.split(","):
            with edgert.LLM(options.model, context=options.window, kv_type=name, sequences=1) as llm:
                found = compare(exact, llm, windows)
            size = sum(KV_TYPES[name].row_bytes(cache.width) for cache in caches)
            results.append({"kv_type": name, "bytes_per_position": size, **found})
        report = {"commit": commit(), "model": exact.name, "tokens": sum(map(len, windows)), "window": options.window}
    print(json.dumps({**report, "results": results}, indent=1))


if __name__ == "__main__":
    main()
