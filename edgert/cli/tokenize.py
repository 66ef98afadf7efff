"""`edgert tokenize MODEL TEXT`: what a model's tokenizer makes of a text."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgert.cli import options
from edgert.cli.generate import read_prompt


@options.may_be_offline
def tokenize(
    model: options.RequiredModel,
    text: Annotated[str | None, typer.Argument(help="The text; without it, or as '-': read from stdin.")] = None,
    special: Annotated[bool, typer.Option(help="Add the begin and end tokens the model asks for.")] = True,
    as_json: options.Json = False,
) -> None:
    """Print the token ids of a text, each with its piece; no weights are loaded."""
    from edgert_quant.gguf import GgufFile

    from edgert.cli.console import print_json
    from edgert.resolve import as_reference, resolve_model
    from edgert.text import Tokenizer

    with GgufFile.open(resolve_model(as_reference(model))) as file:
        tokenizer = Tokenizer.from_gguf(file.metadata)
    ids = tokenizer.encode(read_prompt(text), add_special=special)
    pieces = [tokenizer.token_bytes(token).decode(errors="replace") for token in ids]
    if as_json:
        print_json({"ids": ids, "pieces": pieces})
        return
    for token, piece in zip(ids, pieces, strict=True):
        sys.stdout.write(f"{token:>7}  {piece!r}\n")
    sys.stdout.write(f"{len(ids)} tokens\n")
