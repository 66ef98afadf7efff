"""`edgert pull`, `edgert list`, `edgert rm`: models of the Hugging Face hub, in the cache that other tools share."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from edgert_models.errors import RequestError

from edgert.cli import options

if TYPE_CHECKING:
    from edgert_runtimes.base import Progress

Reference = Annotated[str, typer.Argument(metavar="ORG/NAME[:QUANT]", help="A model of the hub; default Q4_K_M.")]


@options.may_be_offline
def pull(
    model: Reference,
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit; default: main.")] = None,
    as_json: options.Json = False,
) -> None:
    """Fetch a model from the Hugging Face hub; interrupted, it goes on where it was."""
    from edgert.cli.console import out, print_json, size
    from edgert.hub.pull import pull as fetch

    with _bar(model, quiet=as_json) as progress:
        found = fetch(model, revision=revision, progress=progress)
    if as_json:
        print_json({**asdict(found), "path": str(found.path)})
        return
    came = f"{size(found.downloaded)} fetched" if found.downloaded else "all of it was here"
    out.print(f"{found.model}: {_files(found.files)}, {size(found.size)}, {came}", markup=False, soft_wrap=True)
    out.print(str(found.path), markup=False, soft_wrap=True)
    if found.path.is_dir():
        out.print(f"to run it: edgert convert {model} model.gguf", markup=False, soft_wrap=True)


@contextmanager
def _bar(model: str, quiet: bool) -> Iterator[Progress]:
    """A bar with bytes, speed and time."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    from edgert.cli.console import err

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        tasks = {stage: bar.add_task(f"{verb} {model}", total=None, visible=False) for stage, verb in _STAGES.items()}

        def report(stage: str, done: int, total: int) -> None:
            for other, task in tasks.items():
                bar.update(task, visible=other == stage)
            bar.update(tasks[stage], completed=done, total=total)

        yield report


_STAGES = {"download": "Fetching", "verify": "Checking"}


def _files(names: Sequence[str]) -> str:
    return "1 file" if len(names) == 1 else f"{len(names)} files"


def list_models(as_json: options.Json = False) -> None:
    """List the models in the Hugging Face cache: their names, sizes, and whether edgert runs them."""
    from edgert.cli.console import out, print_json, size
    from edgert.hub.library import list_models as find

    found = find()
    if as_json:
        print_json([{**asdict(one), "path": str(one.path)} for one in found])
        return
    if not found:
        out.print("no models; edgert pull ORG/NAME fetches one", markup=False)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "quantization", "size", "architecture", "runs"):
        table.add_column(title, justify="right" if title == "size" else "left", no_wrap=title != "runs")
    for one in found:
        table.add_row(one.name, one.quantization, size(one.size), one.architecture, one.problem or "yes")
    out.print(table, markup=False)


def remove(
    model: Annotated[str, typer.Argument(metavar="ORG/NAME[:QUANT]", help="A model; without QUANT all of it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.Json = False,
) -> None:
    """Delete a model from the Hugging Face cache."""
    from edgert.cli.console import out, print_json, size
    from edgert.hub.library import Removal

    removal = Removal(model)
    if not yes:
        if not sys.stdin.isatty() or as_json:
            raise RequestError(f"rm asks before it deletes '{model}', and nobody is here; add --yes", parameter="yes")
        for name in removal.names:
            out.print(f"  {name}", markup=False, soft_wrap=True)
        typer.confirm(f"Delete {_files(removal.names)} of {model} ({size(removal.freed)})?", abort=True)
    removal.execute()
    if as_json:
        print_json({"model": model, "files": removal.names, "freed": removal.freed})
    else:
        out.print(f"{model}: {size(removal.freed)} freed", markup=False, soft_wrap=True)
