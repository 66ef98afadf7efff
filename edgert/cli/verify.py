"""`edgert verify MODEL`: is a model file what its receipt says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgert.cli import options

if TYPE_CHECKING:
    from edgert.verification import Check, Verification


def verify(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A GGUF file with a receipt (of a split set: the first).")
    ],
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The stored predictions; default: NAME.predictions.gguf, or as the receipt calls them."
        ),
    ] = None,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    memory: options.Memory = None,
    as_json: options.Json = False,
) -> None:
    """Check a file's weights against its receipt, and measure again what the receipt says of their quality. Exits with
    code 1 if one of them is not as it says.
    """
    from edgert.cli.console import bar, print_json
    from edgert.resolve import as_reference
    from edgert.verification import verify as run

    with bar(as_json) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage.capitalize(), total=total)
            bars.update(tasks[stage], completed=done, total=total)

        found = run(
            as_reference(model),
            predictions,
            backend=backend,
            threads=threads,
            memory=options.byte_count(memory),
            progress=report,
        )
    if as_json:
        print_json(found.plain())
    else:
        _show(found)
    found.require()


def _show(found: Verification) -> None:
    from rich.table import Table

    from edgert.cli.console import out

    table = Table(title=f"{found.model}, beside {found.receipt.reference}", title_justify="left")
    for column in ("", "receipt", "found", ""):
        table.add_column(column)
    for check in found.checks:
        table.add_row(
            check.name, _brief(check, check.recorded), _brief(check, check.found), "ok" if check.passed else "no"
        )
    out.print(table)


def _brief(check: Check, value: float | str) -> str:
    if isinstance(value, str):
        return value if len(value) <= 16 else f"{value[:12]}…"
    return str(value) if check.tolerance == 0 else f"{value:.6g}"
