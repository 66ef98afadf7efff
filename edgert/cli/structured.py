"""The options that say what form an answer has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from edgert_models.errors import RequestError

if TYPE_CHECKING:
    from edgert import StructuredOutputs

_PANEL = "Form of the answer"
JsonSchema = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|JSON", rich_help_panel=_PANEL, help="JSON of this schema: a file, or the schema itself."
    ),
]
Grammar = Annotated[
    Path | None, typer.Option(metavar="FILE", rich_help_panel=_PANEL, help="A grammar in GBNF or Lark.")
]
Regex = Annotated[
    str | None, typer.Option(rich_help_panel=_PANEL, help="A regular expression that the whole answer matches.")
]
Choice = Annotated[
    list[str] | None, typer.Option(rich_help_panel=_PANEL, help="One of several texts; given once for each.")
]


def form(
    json_schema: str | None, grammar: Path | None, regex: str | None, choice: Sequence[str] | None
) -> StructuredOutputs | None:
    """What the options ask for; RequestError where it is malformed, or where they ask for two things."""
    from edgert_quant.files import read_text

    from edgert import StructuredOutputs

    given = {"--json-schema": json_schema, "--grammar": grammar, "--regex": regex, "--choice": choice or None}
    names = [name for name, value in given.items() if value is not None]
    if not names:
        return None
    name = names[0]
    if len(names) > 1:
        raise RequestError(f"{name} and {names[1]} cannot both say what the answer is", parameter=names[1].lstrip("-"))
    if json_schema is not None:
        text = json_schema if json_schema.lstrip().startswith("{") else read_text(json_schema, name.lstrip("-"), name)
        return StructuredOutputs(json=text, parameter=name)
    if grammar is not None:
        return StructuredOutputs(grammar=read_text(grammar, name.lstrip("-"), name), parameter=name)
    return StructuredOutputs(regex=regex, choice=choice or None, parameter=name)
