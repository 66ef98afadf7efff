"""A roofline of what `benchmarks.compare` measured, as a PNG.

    python -m benchmarks.roofline results.json... --output roofline.png [--model NAME]

Across: operations for each byte that a test has to read (`benchmarks.work`). Up: operations per second. The roof is
what the machine can do at most, by the measured read bandwidth (slope) and the measured int8 peak (flat), for each
number of threads; no point can be above it unless data stays in caches, routers choose fewer experts than chance, or
the limits were measured while something else ran. Needs matplotlib (the dependency group `bench`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.tables import Entry, latest, read

STYLES = {
    "ik_llama.cpp": ("^", "#edae49", 80),
    "llama.cpp": ("s", "#30638e", 56),
    "edgert": ("o", "#d1495b", 30),
}
"""Marker, colour and size, drawn in this order: where points meet, all can be seen."""
INCHES = (7.2, 5.2)
"""Of one panel."""


def points(entry: Entry) -> list[dict[str, Any]]:
    """Of every test that counts tokens: its name, operations per byte, and GOPS by program."""
    found = []
    for test in entry["tests"]:
        if test["unit"] != "tokens/s":
            continue
        per_token = test["operations"] / test["tokens"] / 1e9
        rates = {name: value["median"] for name, value in test["programs"].items() if "median" in value}
        if rates:
            gops = {name: rate * per_token for name, rate in rates.items()}
            found.append({"test": test["test"], "intensity": test["operations"] / test["bytes"], "gops": gops})
    return sorted(found, key=lambda point: float(point["intensity"]))


def draw(entries: Sequence[Entry]) -> Figure:
    """A panel for each entry: models downwards, numbers of threads across."""
    models = list(dict.fromkeys(entry["model"]["name"] for entry in entries))
    counts = sorted({entry["threads"] for entry in entries})
    size = (INCHES[0] * len(counts), INCHES[1] * len(models))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(models), len(counts), squeeze=False, sharey="row")
    for line, model in enumerate(models):
        for column, threads in enumerate(counts):
            ax = axes[line][column]
            entry = next((e for e in entries if (e["model"]["name"], e["threads"]) == (model, threads)), None)
            if entry is None:
                ax.set_axis_off()
            else:
                panel(ax, entry)
        axes[line][0].set_ylabel("GOPS")
    for ax in axes[-1]:
        ax.set_xlabel("operations per byte read")
    machine = entries[0]["machine"]
    figure.suptitle(f"{machine['cpu']}, {machine['instruction_set']}; medians, {entries[0]['when'][:10]}", fontsize=10)
    return figure


def panel(ax: Axes, entry: Entry) -> None:
    """One model on one number of threads."""
    limits, found = entry["limits"], points(entry)
    read_rate, peak = limits["read_gb_per_second"], limits["int8_gops_per_second"]
    ridge = peak / read_rate
    intensities = [point["intensity"] for point in found] or [ridge]
    left, right = min(*intensities, ridge) / 2, max(*intensities, ridge) * 2
    ax.set_xscale("log")
    ax.set_yscale("log")
    roof = [left * read_rate, peak, peak]
    name = f"roof: {read_rate:.1f} GB/s, {peak:.0f} GOPS of int8 products"
    ax.plot([left, ridge, right], roof, color="black", linewidth=1.5, label=name)
    highest = max([peak, *(value for point in found for value in point["gops"].values())])
    lowest = min([roof[0], *(value for point in found for value in point["gops"].values())])
    ax.fill_between([left, ridge, right], roof, 10 * highest, color="black", alpha=0.06, linewidth=0)
    for point in found:
        x, values = point["intensity"], point["gops"].values()
        top = min(x * read_rate, peak)
        ax.plot([x, x], [min(values), top], color="black", alpha=0.25, linewidth=0.8, zorder=1)
    for program, (marker, color, size) in STYLES.items():
        places = [(point["intensity"], point["gops"][program]) for point in found if program in point["gops"]]
        if places:
            style = {"marker": marker, "color": color, "edgecolors": "white", "linewidths": 0.5}
            ax.scatter(*zip(*places, strict=True), s=size, label=program, zorder=3, **style)
    label(ax, found, ridge, lambda x: min(x * read_rate, peak))
    ax.set_xlim(left, right)
    ax.set_ylim(lowest / 3, highest * 3)
    ax.grid(which="both", alpha=0.15)
    ax.set_title(f"{entry['model']['name']}, threads={entry['threads']}", fontsize=10)
    ax.legend(loc="lower right", fontsize=8)


def label(ax: Axes, found: Sequence[dict[str, Any]], ridge: float, roof: Callable[[float], float]) -> None:
    """Names of tests above roof and points, to the left where the roof slopes; those that would meet go upwards."""
    previous, level = 0.0, 0
    for point in found:
        x, y = point["intensity"], max(roof(point["intensity"]), *point["gops"].values())
        level = level + 1 if previous and x / previous < 1.5 else 0
        previous = x
        side, shift = ("right", 4) if x < ridge else ("center", 0)
        style: dict[str, Any] = {"textcoords": "offset points", "ha": side, "fontsize": 8}
        ax.annotate(point["test"], (x, y), (shift, 8 + 11 * level), **style)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("roofline.png"))
    parser.add_argument("--model", action="append", help="only this model, by its file's name")
    chosen = parser.parse_args(arguments)
    entries = [e for e in latest(read(chosen.results)) if not chosen.model or e["model"]["name"] in chosen.model]
    if not entries:
        parser.error("there is nothing to draw: the files have no such entries")
    draw(entries).savefig(chosen.output, dpi=130)


if __name__ == "__main__":
    main()
