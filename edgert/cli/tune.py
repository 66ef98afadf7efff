"""What `edgert convert` does with a calibration text: see `edgert.tuning`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from edgert_models.errors import RequestError

from edgert.cli import options
from edgert.cli.plots import check_plot, figure_of

if TYPE_CHECKING:
    from edgert_quant.blocks import BlockType
    from rich.table import Table

    from edgert.tuning.pipeline import Tuned

Calibration = Annotated[
    str | None, typer.Option(metavar="TEXT", help="A text to measure on ('-': stdin); wanted by what follows.")
]
Budget = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Choose types so that the file takes at most so much, such as 8GiB.")
]
Bits = Annotated[float | None, typer.Option("--bpw", min=0.5, max=32, help="Choose types for so many bits per weight.")]
Plan = Annotated[Path | None, typer.Option(help="Take types from a plan, a TOML file by --save-plan.")]
SavePlan = Annotated[Path | None, typer.Option(help="Write which tensor gets which type.")]
OnlyPlan = Annotated[bool, typer.Option("--only-plan", help="Choose and print types; write no model.")]
Plot = Annotated[Path | None, typer.Option(help="Write a picture (PNG, SVG or PDF) of the types and the trade-off.")]
Compensate = Annotated[
    bool, typer.Option(help="With a calibration text: let weights make up for the rounding errors of others.")
]
Finish = Annotated[
    int, typer.Option(min=0, metavar="STEPS", help="Tune scales, norms and routers for so many steps on the text.")
]
Teacher = Annotated[
    str | None, typer.Option(help="Tune towards this model's predictions instead of the source's; a GGUF file.")
]
Window = Annotated[int, typer.Option(min=16, help="Tokens of a window of the calibration text.")]
Tokens = Annotated[int | None, typer.Option(min=1, help="Most tokens of the calibration text to use.")]
Work = Annotated[Path | None, typer.Option(help="Folder for what is measured; default: OUTPUT.work.")]
KeepWork = Annotated[bool, typer.Option("--keep-work", help="Do not remove it in the end.")]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """The options of `edgert convert` that need a calibration text."""

    calibration: str | None
    budget: str | None
    bits: float | None
    plan: Path | None
    save_plan: Path | None
    only_plan: bool
    plot: Path | None
    compensate: bool
    finish: int
    teacher: str | None
    window: int
    tokens: int | None
    work: Path | None
    keep_work: bool

    def wanted(self) -> bool:
        """Whether there is something to measure; RequestError for wishes that do not go together."""
        needing = {
            "--budget": self.budget,
            "--bpw": self.bits,
            "--finish": self.finish,
            "--only-plan": self.only_plan,
            "--save-plan": self.save_plan,
            "--plot": self.plot,
            "--teacher": self.teacher,
        }
        if self.calibration is None:
            asked = next((name for name, value in needing.items() if value), None)
            if asked is not None:
                raise RequestError(f"{asked} needs a text to measure on: name it by --calibration", parameter=asked)
            return False
        deciding = [name for name in ("--budget", "--bpw") if needing[name]] + ["--plan"] * (self.plan is not None)
        if len(deciding) > 1:
            raise RequestError(f"{deciding[0]} and {deciding[1]} both decide on types: give one", parameter="plan")
        if self.bits is not None and math.isnan(self.bits):  # which passes every bound of an option
            raise RequestError("--bpw must be a number from 0.5 to 32, not nan", parameter="bpw")
        if self.teacher is not None and not self.finish:
            raise RequestError("--teacher says what to tune towards: say for how long by --finish", parameter="teacher")
        if self.plot is not None:
            check_plot(self.plot)
        return True


def run(source: str, output: Path, wishes: Wishes, type_name: str | None, threads: int | None, **more: Any) -> None:
    """Convert with measurement, and show what was found."""
    from edgert.cli.console import bar, err, out, print_json
    from edgert.cli.convert import summary
    from edgert.cli.evaluate import read_text
    from edgert.tuning.pipeline import Options, convert

    quiet = more.pop("as_json")
    assert wishes.calibration is not None
    asked = Options(
        calibration=read_text(wishes.calibration),
        type=type_name,
        plan=wishes.plan,
        budget=options.byte_count(wishes.budget, "--budget"),
        bits=wishes.bits,
        compensate=wishes.compensate,
        steps=wishes.finish,
        teacher=wishes.teacher,
        window=wishes.window,
        tokens=wishes.tokens,
        threads=threads,
        work=wishes.work,
        keep_work=wishes.keep_work,
        only_plan=wishes.only_plan,
        save_plan=wishes.save_plan,
    )
    with bar(quiet=quiet) as progress:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage.capitalize(), total=total)
            progress.update(tasks[stage], completed=done, total=total)

        found = convert(source, output, asked, progress=report, **more)
    if wishes.plot is not None:
        _draw(found, wishes.plot)
    if quiet:
        print_json(found.to_dict())
        return
    if found.report is None or wishes.save_plan is None:
        out.print(plan_table(found.plan))
    out.print(_steps(found.divergence))
    if found.report is not None:
        out.print(summary(found.report))
        for warning in found.report.warnings:
            err.print(f"[yellow]warning:[/yellow] {warning}")


def by_layer(plan: Mapping[str, BlockType]) -> tuple[list[str], dict[str, dict[str, BlockType]]]:
    """Parts in order, and for each layer ("" for what belongs to none) the types of its parts."""
    parts: list[str] = []
    layers: dict[str, dict[str, BlockType]] = {}
    for name, kind in plan.items():
        words = name.removesuffix(".weight").split(".")
        layer, part = (words[1], ".".join(words[2:])) if words[0] == "blk" else ("", ".".join(words))
        if part not in parts:
            parts.append(part)
        layers.setdefault(layer, {})[part] = kind
    return parts, layers


def plan_table(plan: Mapping[str, BlockType]) -> Table:
    """Types by layer and part."""
    from rich.table import Table

    parts, layers = by_layer(plan)
    inside = [part for part in parts if any(part in own for layer, own in layers.items() if layer)]
    table = Table(title="types", title_justify="left")
    table.add_column("layer", justify="right")
    for part in inside:
        table.add_column(part.removeprefix("attn_").removeprefix("ffn_").replace("_", " "))
    for layer, own in layers.items():
        if layer:
            table.add_row(layer, *(own[part].name if part in own else "" for part in inside))
    outside = layers.get("", {})
    if outside:
        table.caption = ", ".join(f"{part}: {kind.name}" for part, kind in outside.items())
    return table


def _steps(divergence: Mapping[str, float]) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("divergence on held-out windows, nats")
    table.add_column("mean", justify="right")
    for step, value in divergence.items():
        table.add_row(step, f"{value:.5f}")
    return table


def _draw(found: Tuned, path: Path) -> None:
    """Types by layer and part as a map, and, with a budget, bytes against divergence."""
    from edgert.tuning.sensitivity import KINDS

    parts, layers = by_layer(found.plan)
    figure = figure_of(width=11 if found.curve else 7, height=max(3.5, 1.8 + 0.22 * len(layers)))
    axes: Sequence[Any] = figure.subplots(1, 2 if found.curve else 1, squeeze=False)[0]
    rank = {kind: place for place, kind in enumerate(KINDS)}
    rows = [
        [rank.get(own[part], len(KINDS)) if part in own else float("nan") for part in parts] for own in layers.values()
    ]
    axes[0].imshow(rows, aspect="auto", cmap="viridis", vmin=0, vmax=len(KINDS))
    for y, own in enumerate(layers.values()):
        for x, part in enumerate(parts):
            if part in own:
                axes[0].text(x, y, own[part].name, ha="center", va="center", fontsize=6, color="white")
    axes[0].set_xticks(range(len(parts)), parts, rotation=45, ha="right", fontsize=7)
    axes[0].set_yticks(range(len(layers)), [layer or "-" for layer in layers], fontsize=7)
    axes[0].set_ylabel("layer")
    axes[0].set_title("types")
    if found.curve:
        axes[1].semilogy([size / 2**20 for size, _ in found.curve], [value for _, value in found.curve], marker=".")
        axes[1].set_xlabel("matrices, MiB")
        axes[1].set_ylabel("expected divergence, nats")
        axes[1].set_title("trade-off")
        axes[1].grid(alpha=0.3)
    figure.savefig(path, dpi=150)
