"""Perplexity here and in llama.cpp, on the same windows of the same text, and what quantized activations cost, as JSON.

    python -m benchmarks.perplexity [MODEL] --text FILE [--llama-perplexity PATH] [--window 256] [--windows 32]

MODEL is what `edgert.LLM` takes, by default the bundled demo model. Against the reference backend, which multiplies
dequantized weights by floats: the mean Kullback-Leibler divergence in the first windows, and the share of tokens whose
likeliest successor is the same. What counts: see `edgert.evaluation`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from pathlib import Path

import edgert
from benchmarks.matmul import commit
from edgert.evaluation import evaluate
from edgert.resolve import resolve_model

FINAL = re.compile(r"Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)")
REFERENCE_WINDOWS = 8


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
    size, text = arguments.window, arguments.text.read_text()
    with edgert.LLM(path, kv_type="f16", context=size) as llm:
        found = evaluate(llm, text, window=size, most_windows=arguments.windows)
        result: dict[str, object] = {"perplexity": found.perplexity.mean, "windows": found.windows, "window": size}
        if arguments.llama_perplexity is not None:
            ppl, error = theirs(arguments.llama_perplexity, path, arguments.text, size, found.windows)
            result |= {"llama.cpp": ppl, "llama.cpp_error": error, "ratio": found.perplexity.mean / ppl}
        with edgert.LLM(path, backend="reference", context=size) as exact:
            most = min(found.windows, REFERENCE_WINDOWS)
            beside = evaluate(llm, text, reference=exact, window=size, most_windows=most).comparison
            assert beside is not None
            figures = {"mean_kl_divergence": beside.divergence.mean, "same_likeliest_token": beside.same_top.mean}
            result["against_reference"] = figures
    print(json.dumps({"commit": commit(), "model": path.name, **result}, indent=1))


if __name__ == "__main__":
    main()
