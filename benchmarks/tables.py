"""The Markdown tables of docs/benchmarks.md, from what `benchmarks.compare` measured.

    python -m benchmarks.tables results.json...

Of entries for the same model file and number of threads, the latest is shown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


def read(paths: Iterable[Path]) -> list[Entry]:
    """The entries of result files, in order."""
    return [entry for path in paths for entry in json.loads(path.read_text(encoding="utf-8"))]


def latest(entries: Iterable[Entry]) -> list[Entry]:
    """Of entries for the same model, threads and machine the latest, in order of models and threads."""
    found: dict[tuple[str, str, str, int], Entry] = {}
    for entry in sorted(entries, key=lambda entry: str(entry["when"])):
        model = entry["model"]
        found[model["name"], model["head_sha256"], str(entry["machine"]["cpu"]), entry["threads"]] = entry
    return [found[key] for key in sorted(found)]


def render(entries: Sequence[Entry]) -> str:
    """Tables by model and machine, one row for each test and number of threads."""
    parts = []
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in latest(entries):
        groups.setdefault((entry["model"]["name"], str(entry["machine"]["cpu"])), []).append(entry)
    for group in groups.values():
        parts.append(head(group) + "\n\n" + table(group))
    return "\n\n".join(parts)


def head(group: Sequence[Entry]) -> str:
    """What was measured, on what, and what the machine can do."""
    first = group[0]
    machine, model = first["machine"], first["model"]
    versions = ", ".join(f"{name} {version}" for name, version in first["programs"].items())
    limits = "; ".join(
        f"with threads={entry['threads']} it reads {entry['limits']['read_gb_per_second']:.1f} GB/s and makes "
        f"{entry['limits']['int8_gops_per_second']:.0f} GOPS of int8 products"
        for entry in group
    )
    return (
        f"**{model['name']}** ({model['bytes'] / 1e9:.2f} GB, head {model['head_sha256'][:12]}) on {machine['cpu']}, "
        f"{machine['cpus']} CPUs, {machine['instruction_set']}; {limits}. "
        f"Medians of {first['rounds']} rounds, {first['when'][:10]}; {versions}."
    )


def table(group: Sequence[Entry]) -> str:
    """Rows of tests; where a program has no figure, why not, below the table."""
    programs = list(dict.fromkeys(name for entry in group for name in entry["programs"]))
    peers = [name for name in programs if name != "edgert"]
    header = ["threads", "test", *programs, *(f"times {name}" for name in peers), "edgert's share of the limit"]
    lines = [row(header), row(["---"] * len(header))]
    remarks: list[str] = []
    for entry in group:
        for test in entry["tests"]:
            cells = [str(entry["threads"]), test["test"]]
            for name in programs:
                found = test["programs"].get(name, {"error": "not measured"})
                if "error" in found:
                    remark = f"{name}, {test['test']}: {found['error']}"
                    remarks += [remark] if remark not in remarks else []
                    cells.append("–")
                else:
                    flags = f" ({found['flags']})" if found["flags"] else ""
                    cells.append(figure(found["median"], test["unit"]) + flags)
            for name in peers:
                ratio = test["ratios"].get(name)
                cells.append(f"{ratio['median']:.2f}" if ratio else "–")
            lines.append(row([*cells, share(entry, test)]))
    return "\n".join(lines + ([""] + [f"- {remark}" for remark in remarks] if remarks else []))


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def share(entry: Entry, test: dict[str, Any], program: str = "edgert") -> str:
    """Of the limit that is nearer: reading what the test needs from memory, or multiplying it."""
    found = test["programs"].get(program, {})
    if test["unit"] != "tokens/s" or "median" not in found:
        return ""
    seconds = test["tokens"] / found["median"]
    read = test["bytes"] / seconds / 1e9 / entry["limits"]["read_gb_per_second"]
    codes = test["operations"] / seconds / 1e9 / entry["limits"]["int8_gops_per_second"]
    return f"{read:.2f} of read bandwidth" if read >= codes else f"{codes:.2f} of int8 peak"


def figure(value: float, unit: str) -> str:
    """Three significant digits and the unit, where it is not tokens/s."""
    if unit == "bytes":
        return f"{value / 2**30:.2f} GiB"
    if unit == "s" and value < 1:
        return figure(1000 * value, "") + " ms"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}" + (" s" if unit == "s" else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    print(render(read(parser.parse_args(arguments).results)))


if __name__ == "__main__":
    main()
