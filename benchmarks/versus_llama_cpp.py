"""edgert and llama.cpp on the same file, in turn, as JSON.

    python -m benchmarks.versus_llama_cpp MODEL --bin FOLDER

Each round runs `edgert bench` and `llama-bench` in turn; the medians of the ratios of the rounds are what to quote.
Nothing else should run on the machine.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any


def edgert(model: Path, threads: int, prompt: int, decode: int) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "edgert",
        "bench",
        str(model),
        "--json",
        "--repeat",
        "1",
        "--threads",
        str(threads),
    ]
    command += ["--prompt-tokens", str(prompt), "--decode-tokens", str(decode)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"prefill": result["prefill_tokens_per_second"], "decode": result["decode_tokens_per_second"]}


def llama_cpp(program: Path, model: Path, threads: int, prompt: int, decode: int, repack: bool) -> dict[str, float]:
    common = [str(program), "-m", str(model), "-t", str(threads), "-r", "1", "-o", "json", "--repack", str(int(repack))]

    def rate(*test: str) -> float:
        runs: list[dict[str, Any]] = json.loads(
            subprocess.run([*common, *test], check=True, capture_output=True, text=True).stdout
        )
        return float(runs[0]["avg_ts"])

    return {
        "prefill": rate("-p", str(prompt), "-n", "0"),
        "decode": rate("-p", "0", "-n", str(decode), "-d", str(prompt)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--bin", type=Path, required=True, help="folder of llama-bench")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sizes = (arguments.prompt_tokens, arguments.decode_tokens)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    report: dict[str, Any] = {
        "model": arguments.model.name,
        "bytes": arguments.model.stat().st_size,
        "commit": commit.strip(),
        "machine": platform.processor() or platform.machine(),
        "prompt_tokens": sizes[0],
        "decode_tokens": sizes[1],
        "results": [],
    }
    for threads in arguments.threads:
        rounds = []
        for _ in range(arguments.rounds):
            one = {"edgert": edgert(arguments.model, threads, *sizes)}
            for name, repack in (("llama.cpp", True), ("llama.cpp without repacking", False)):
                program = arguments.bin / "llama-bench"
                one[name] = llama_cpp(program, arguments.model, threads, *sizes, repack)
            rounds.append(one)
        result: dict[str, Any] = {"threads": threads}
        for phase in ("prefill", "decode"):
            for name in rounds[0]:
                result[f"{name}: {phase} tokens/s"] = statistics.median(one[name][phase] for one in rounds)
            best = [max(values[phase] for name, values in one.items() if name != "edgert") for one in rounds]
            ratios = [one["edgert"][phase] / other for one, other in zip(rounds, best, strict=True)]
            result[f"{phase} ratio to the best llama.cpp"] = statistics.median(ratios)
        report["results"].append(result)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
