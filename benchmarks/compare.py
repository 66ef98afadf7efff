"""edgert beside llama.cpp and ik_llama.cpp, on the same files, in turns.

    python -m benchmarks.compare MODEL... --llama-bench PATH [--ik-llama-bench PATH] [--threads 1,2] [--rounds 3]
        [--tests pp512,tg128@d128] [--output results.json]

In every round each program runs each test once, one after another (A B C, A B C, …), peers with each of their good
flags; nothing is built. What counts of a peer is, for each test, the median of its best flags. Ratios say how many
times better edgert is, by round, and their median. The machine's limits are measured in every round too; the highest
count. Nothing else should run on the machine. Results are appended to the file (a JSON list, one entry for each model
and number of threads), of which `benchmarks.tables` and `benchmarks.roofline` make tables and a picture. Programs of
which no path is given are not measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine, tables
from benchmarks.peers import IkLlama, LlamaCpp, Tools
from benchmarks.programs import Case, Edgert, Program, RunError, case
from benchmarks.work import work_of

TESTS = "pp128,pp512,pp4096,tg128@d128,tg128@d4096,tg64@d128x8,ttft512,start,load,memory"
LIMITS = ("read_gb_per_second", "int8_gops_per_second", "float32_gflops_per_second")

Runs = dict[str, dict[str, list[float]]]
"""Values by program and variant, in order of rounds."""


def compare(
    model: Path, cases: Sequence[Case], programs: Sequence[Program], threads: int, rounds: int, timeout: float
) -> dict[str, Any]:
    """One entry of the results."""
    runs: dict[str, Runs] = {case.name: {program.name: {} for program in programs} for case in cases}
    errors: dict[str, dict[str, str]] = {case.name: {} for case in cases}
    limits = []
    with model.open("rb") as file:  # into the system's cache, for whoever comes first
        while file.read(1 << 24):
            pass
    for number in range(rounds):
        limits.append(machine.peaks(threads))
        for one in cases:
            for program in programs:
                if program.name in errors[one.name]:
                    continue
                note(f"{model.name}, {threads} threads, round {number + 1} of {rounds}: {one.name}, {program.name}")
                try:
                    values = program.measure(one, model, threads, timeout)
                except RunError as error:
                    errors[one.name][program.name] = str(error)
                    note(f"    {error}")
                    continue
                for variant, value in values.items():
                    runs[one.name][program.name].setdefault(variant, []).append(value)
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "machine": machine.machine(),
        "model": machine.model(model),
        "threads": threads,
        "rounds": rounds,
        "limits": {name: max(one[name] for one in limits) for name in LIMITS},
        "programs": {program.name: program.version for program in programs},
        "tests": [result(one, model, runs[one.name], errors[one.name], rounds) for one in cases],
    }


def result(one: Case, model: Path, runs: Runs, errors: dict[str, str], rounds: int) -> dict[str, Any]:
    """A test's values: of each program those of its best variant, and all; ratios of edgert to each peer."""
    found: dict[str, Any] = {"test": one.name, "unit": one.unit, "programs": {}, "ratios": {}}
    if one.trial is not None:
        needed = work_of(model, one.trial)
        found |= {"tokens": one.trial.tokens * one.trial.batch, "phase": one.trial.phase.value}
        found |= {"bytes": needed.bytes, "operations": needed.operations}
    best = max if one.more_is_better else min
    for name, variants in runs.items():
        whole = {flags: values for flags, values in variants.items() if len(values) == rounds}
        if name in errors or not whole:
            found["programs"][name] = {"error": errors.get(name, "it gave no result")}
            continue
        flags = best(whole, key=lambda flags: median(whole[flags]))
        found["programs"][name] = {
            "median": median(whole[flags]),
            "runs": whole[flags],
            "flags": flags,
            "variants": whole,
        }
    ours = found["programs"].get(Edgert.name, {}).get("runs")
    for name, values in found["programs"].items():
        if ours is None or name == Edgert.name or "runs" not in values:
            continue
        pairs = zip(ours, values["runs"], strict=True)
        ratios = [mine / theirs if one.more_is_better else theirs / mine for mine, theirs in pairs]
        found["ratios"][name] = {"median": median(ratios), "runs": ratios}
    return found


def append(path: Path, entry: dict[str, Any]) -> None:
    """Add an entry to the list in a file, which is never left half written."""
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps([*entries, entry], indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def note(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, append, and print as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", metavar="MODEL", nargs="+", type=Path)
    for prefix, complete in (("", "llama-completion"), ("ik-", "ik-llama-cli")):
        parser.add_argument(f"--{prefix}llama-bench", type=Path)
        parser.add_argument(f"--{prefix}llama-batched-bench", type=Path, help="for several sequences at once")
        parser.add_argument(f"--{complete}", type=Path, help="for the test 'start'")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tests", default=TESTS, help=f"default: {TESTS}")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one process (%(default)s)")
    parser.add_argument("--output", type=Path, help="the file to append to")
    chosen = parser.parse_args(arguments)
    try:
        cases = list(dict.fromkeys(case(name.strip()) for name in chosen.tests.split(",")))
        counts = [int(count) for count in chosen.threads.split(",")]
    except ValueError as error:
        parser.error(str(error))
    if chosen.rounds < 1 or min(counts) < 1:
        parser.error("rounds and threads start from 1")
    if missing := [str(path) for path in chosen.models if not path.is_file()]:
        parser.error(f"there is no file {', '.join(missing)}")
    programs: list[Program] = [Edgert(machine.commit())]
    llama = Tools(*map(absolute, (chosen.llama_bench, chosen.llama_batched_bench, chosen.llama_completion)))
    ik = Tools(*map(absolute, (chosen.ik_llama_bench, chosen.ik_llama_batched_bench, chosen.ik_llama_cli)))
    programs += [kind(tools) for kind, tools in ((LlamaCpp, llama), (IkLlama, ik)) if tools != Tools()]
    entries = []
    for model in chosen.models:
        for threads in counts:
            entry = compare(model.resolve(), cases, programs, threads, chosen.rounds, chosen.timeout)
            entries.append(entry)
            if chosen.output is not None:
                append(chosen.output, entry)
    print(json.dumps(entries, indent=1))
    print()
    print(tables.render(entries))


def absolute(path: Path | None) -> Path | None:
    """Since programs run in folders of their own."""
    return None if path is None else path.resolve()


if __name__ == "__main__":
    main()
