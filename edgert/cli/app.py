"""The commands that `edgert` has."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from edgert import __version__
from edgert.cli import (
    bench,
    calibrate,
    chat,
    convert,
    doctor,
    evaluate,
    generate,
    inspect,
    library,
    serve,
    tokenize,
    verify,
    warmup,
)
from edgert.cli.configuration import configuration_file, read_configuration

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
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run Mixture-of-Experts language models on the machine at hand."""
    path = configuration_file()
    if path is not None:
        assert isinstance(context.command, TyperGroup)
        context.default_map = read_configuration(path, context.command.commands)


app.command()(chat.chat)
app.command()(generate.generate)
app.command()(serve.serve)
app.command()(library.pull)
app.command("list")(library.list_models)
app.command("rm")(library.remove)
app.command()(convert.convert)
app.command()(calibrate.calibrate)
app.command()(evaluate.evaluate)
app.command()(verify.verify)
app.command("inspect")(inspect.inspect_file)
app.command()(tokenize.tokenize)
app.command()(bench.bench)
app.command()(warmup.warmup)
app.command()(doctor.doctor)
