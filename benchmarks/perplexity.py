"""Perplexity here and in llama.cpp, on the same windows of the same text, and what quantized activations cost, as JSON.

    python -m benchmarks.perplexity [MODEL] --text FILE [--llama-perplexity PATH] [--window 256] [--windows 32]

MODEL is what `edgert.LLM` takes, by default the bundled demo model. As in llama.cpp's program, what counts are the
tokens of the second half of each window, and a window starts with the model's first token where it has one. Against the
reference backend, which multiplies dequantized weights by floats: the mean Kullback-Leibler divergence of all tokens of
the first windows, and the share of tokens whose likeliest successor is the same.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from pathlib import Path

import numpy as np

import edgert
from benchmarks.kv_quality import compare, log_probabilities
from benchmarks.matmul import commit
from edgert.resolve import resolve_model

FINAL = re.compile(r"Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)")
REFERENCE_WINDOWS = 8


def windows_of(llm: edgert.LLM, text: str, size: int, most: int) -> list[list[int]]:
    """Whole windows of token ids."""
    ids = llm.tokenize(text)
    return [ids[start : start + size] for start in range(0, len(ids) - size + 1, size)][:most]


def perplexity(llm: edgert.LLM, windows: list[list[int]]) -> float:
    """exp of the mean loss."""
    losses = []
    for ids in windows:
        first = len(ids) // 2
        found = log_probabilities(llm, ids)[first:-1]
        losses.append(-found[np.arange(len(found)), ids[first + 1 :]])
    return float(np.exp(np.concatenate(losses).mean()))


def theirs(program: Path, model: Path, text: Path, size: int, count: int) -> tuple[float, float]:
    """Perplexity and its uncertainty, as llama.cpp tells them."""
    command = [program, "-m", model, "-f", text, "-c", size, "-b", size, "--chunks", count]
    finished = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    found = FINAL.search(finished.stdout + finished.stderr)
    if found is None:
        raise SystemExit(f"{program} told no perplexity")
    return float(found[1]), float(found[2])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--llama-perplexity", type=Path)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--windows", type=int, default=32)
    arguments = parser.parse_args()
    path = resolve_model(arguments.model)
    with edgert.LLM(path, kv_type="f16", context=arguments.window) as llm:
        windows = windows_of(llm, arguments.text.read_text(), arguments.window, arguments.windows)
        result = {"perplexity": perplexity(llm, windows), "windows": len(windows), "window": arguments.window}
        if arguments.llama_perplexity is not None:
            ppl, error = theirs(arguments.llama_perplexity, path, arguments.text, arguments.window, len(windows))
            result |= {"llama.cpp": ppl, "llama.cpp_error": error, "ratio": result["perplexity"] / ppl}
        with edgert.LLM(path, backend="reference", context=arguments.window) as exact:
            result["against_reference"] = compare(exact, llm, windows[:REFERENCE_WINDOWS])
    print(json.dumps({"commit": commit(), "model": path.name, **result}, indent=1))


if __name__ == "__main__":
    main()
