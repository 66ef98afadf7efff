"""`edgert calibrate MODEL TEXT`: an importance matrix, for quantizing by what matters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgert.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from edgert.calibration import Calibration


def calibrate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A GGUF file, a checkpoint folder, or 'demo'; best not quantized.")
    ],
    text: Annotated[Path, typer.Argument(metavar="TEXT", help='UTF-8 text, or *.jsonl whose lines have a "text".')],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("imatrix.gguf"),
    window: Annotated[int, typer.Option(help="Tokens of context.")] = 512,
    windows: Annotated[int | None, typer.Option(min=1, help="Most windows; default: the whole text.")] = None,
    process_output: Annotated[bool, typer.Option(help="Collect for the output matrix too.")] = False,
    parse_special: Annotated[
        bool, typer.Option(help="Take what looks like a control token in the text for that token.")
    ] = False,
    min_tokens_per_expert: Annotated[
        int | None, typer.Option(min=1, help="Fail if an expert has seen fewer tokens in the end.")
    ] = None,
    save_every: Annotated[
        float, typer.Option(min=0, help="Seconds between states from which a killed run goes on.")
    ] = 60.0,
    as_json: options.Json = False,
) -> None:
    """Run a model over a text and write how large the inputs of each matrix are, expert by expert: an importance
    matrix for `edgert convert --imatrix` and llama-quantize. Run it again to go on after it was killed.
    """
    from edgert_quant.imatrix import POOL_ROWS

    from edgert.calibration import calibrate as run
    from edgert.cli.console import bar, err, out, print_json

    with bar(as_json) as bars:
        task = bars.add_task("Calibrating", total=None)
        found = run(
            model,
            text,
            output,
            window=window,
            windows=windows,
            process_output=process_output,
            parse_special=parse_special,
            save_every=save_every,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    threshold = POOL_ROWS if min_tokens_per_expert is None else min_tokens_per_expert
    if as_json:
        print_json(found.plain(threshold))
    else:
        again = f", {found.resumed} of them by an earlier run" if found.resumed else ""
        out.print(
            f"{found.output}: {found.windows} windows of {found.window} tokens{again}", markup=False, soft_wrap=True
        )
        table = coverage_table(found, threshold)
        if table.row_count:
            out.print(table)
        for warning in found.warnings:
            err.print(f"[yellow]warning:[/yellow] {warning}", soft_wrap=True)
    if min_tokens_per_expert is not None:
        found.require(min_tokens_per_expert)


def coverage_table(found: Calibration, threshold: int) -> Table:
    """Tokens per expert, layer by layer."""
    from edgert_quant.imatrix import coverage
    from rich.table import Table

    table = Table(title="Tokens per expert", title_justify="left")
    table.add_column("layer")
    for name in ("experts", "least", "median", f"below {threshold}"):
        table.add_column(name, justify="right")
    for layer in coverage(found.importance):
        below = str(len(layer.below(threshold)) or "")
        table.add_row(layer.layer, str(len(layer.tokens)), str(layer.least), f"{layer.median:.0f}", below)
    return table
