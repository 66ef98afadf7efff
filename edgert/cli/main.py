"""The `edgert` command: registers the commands and turns errors into one line and an exit code."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer
from edgert_models.errors import EdgertError

from edgert import __version__
from edgert.cli import bench, chat, convert, doctor, generate, inspect, serve, tokenize, warmup

app = typer.Typer(
    name="edgert",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run Mixture-of-Experts language models on the machine at hand.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgert {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run Mixture-of-Experts language models on the machine at hand."""


app.command()(chat.chat)
app.command()(generate.generate)
app.command()(serve.serve)
app.command()(convert.convert)
app.command("inspect")(inspect.inspect_file)
app.command()(tokenize.tokenize)
app.command()(bench.bench)
app.command()(warmup.warmup)
app.command()(doctor.doctor)


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the code."""
    sys.stderr.write(f"edgert: warning: {message}\n")


def run() -> None:
    """Run the command line. Errors of ours become one line on stderr and the exit code of their class."""
    warnings.showwarning = _show
    try:
        app()
    except EdgertError as error:
        sys.stderr.write(f"edgert: {' '.join(str(error).split())}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
