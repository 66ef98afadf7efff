"""The commands that `edgert` has."""

from __future__ import annotations

from collections import UserDict
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edgert import __version__
from edgert.cli.configuration import configuration_file, read_configuration

_FUNCTIONS = {
    "chat": "chat.chat",
    "generate": "generate.generate",
    "serve": "serve.serve",
    "pull": "library.pull",
    "list": "library.list_models",
    "rm": "library.remove",
    "convert": "convert.convert",
    "calibrate": "calibrate.calibrate",
    "evaluate": "evaluate.evaluate",
    "verify": "verify.verify",
    "inspect": "inspect.inspect_file",
    "tokenize": "tokenize.tokenize",
    "bench": "bench.bench",
    "warmup": "warmup.warmup",
    "doctor": "doctor.doctor",
}
"""Where each command is, in `edgert.cli`."""


class _Commands(UserDict[str, Any]):
    """Commands of click by name. What one is made of is imported, and its options are read, when it is asked for: most
    processes run one.
    """

    def __getitem__(self, name: str) -> Any:
        command = super().__getitem__(name)
        if isinstance(command, str):
            module, _, function = command.rpartition(".")
            alone = typer.Typer(add_completion=False)
            alone.command(name)(getattr(import_module(f"edgert.cli.{module}"), function))
            command = self.data[name] = typer.main.get_command(alone)
        return command


class _Group(TyperGroup):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = _Commands(_FUNCTIONS)


app = typer.Typer(
    name="edgert",
    cls=_Group,
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
