"""`edgert calibrate MODEL TEXT`: an importance matrix, for quantizing by what matters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from edgert_models.errors import RequestError

from edgert.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from edgert.calibration import Calibration
    from edgert.calibration.texts import Written

_OUTPUT = Path("imatrix.gguf")


def calibrate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A GGUF file, a checkpoint folder, or 'demo'; best not quantized.")
    ],
    text: Annotated[
        Path | None, typer.Argument(metavar="[TEXT]", help='UTF-8 text, or *.jsonl whose lines have a "text".')
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; default: imatrix.gguf.")
    ] = None,
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
    teacher: Annotated[
        str | None,
        typer.Option(help="Who writes the text: a model, or the address of an OpenAI-compatible server."),
    ] = None,
    teacher_model: Annotated[
        str | None, typer.Option(help="What that server calls the model; default: the first it has.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompts for the teacher, one a line.")] = None,
    write: Annotated[
        Path | None, typer.Option(help="Where its answers go: *.jsonl, or plain text with *.jsonl beside it.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Write until there are so many; default: each prompt once.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of the teacher's answers.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of one of them.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Of the first of them; later ones count on.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Run a model over a text and write how large the inputs of each matrix are, expert by expert: an importance
    matrix for `edgert convert --imatrix` and llama-quantize. With --teacher, first let another model write the text
    (and only that, without --output). Run it again to go on after it was killed.
    """
    from edgert.cli.console import bar, out, print_json

    written = None
    if teacher is None:
        given = {"teacher-model": teacher_model, "prompts": prompts, "write": write, "tokens": tokens}
        for name, value in given.items():
            if value is not None:
                raise RequestError(f"--{name} is for a --teacher, who writes the text", parameter=name)
        if text is None:
            raise RequestError("name a TEXT, or a --teacher that writes one", parameter="text")
    else:
        if prompts is None or write is None:
            raise RequestError("a --teacher needs --prompts to answer and a file to --write", parameter="teacher")
        if text is not None:
            raise RequestError("give a TEXT or a --teacher that writes one, not both", parameter="text")
        how = (temperature, max_tokens, seed)
        written = _write(model, teacher, teacher_model, prompts, write, tokens, how, as_json)
        text = write
        if not as_json:
            again = f", {written.resumed} of them by an earlier run" if written.resumed else ""
            line = f"{write}: {written.texts} answers of {written.teacher}{again}, {written.tokens} tokens"
            out.print(line, markup=False, soft_wrap=True)
        elif output is None:
            print_json(written.plain())
        if output is None:
            return

    from edgert_quant.imatrix import POOL_ROWS

    from edgert.calibration import calibrate as run

    with bar(as_json) as bars:
        task = bars.add_task("Calibrating", total=None)
        found = run(
            model,
            text,
            output or _OUTPUT,
            window=window,
            windows=windows,
            process_output=process_output,
            parse_special=parse_special,
            save_every=save_every,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    threshold = POOL_ROWS if min_tokens_per_expert is None else min_tokens_per_expert
    if as_json:
        print_json(found.plain(threshold) | ({} if written is None else {"written": written.plain()}))
    else:
        _show(found, threshold)
    if min_tokens_per_expert is not None:
        found.require(min_tokens_per_expert)


def _write(
    model: str,
    reference: str,
    name: str | None,
    prompts: Path,
    path: Path,
    tokens: int | None,
    how: tuple[float, int, int],
    quiet: bool,
) -> Written:
    """Let the teacher write."""
    from edgert.calibration.model import Model
    from edgert.calibration.teacher import Sampling, teacher_named
    from edgert.calibration.texts import read_prompts, write_texts
    from edgert.cli.console import bar

    asked, sampling = read_prompts(prompts), Sampling(*how)
    with Model(model) as student, teacher_named(reference, name, sampling) as teacher, bar(quiet) as bars:
        task = bars.add_task("Writing", total=None)
        return write_texts(
            teacher,
            asked,
            path,
            sampling=sampling,
            count=lambda text: len(student.tokenizer.encode(text, add_special=False, parse_special=False)),
            tokens=tokens,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )


def _show(found: Calibration, threshold: int) -> None:
    from edgert.cli.console import err, out

    again = f", {found.resumed} of them by an earlier run" if found.resumed else ""
    out.print(f"{found.output}: {found.windows} windows of {found.window} tokens{again}", markup=False, soft_wrap=True)
    table = coverage_table(found, threshold)
    if table.row_count:
        out.print(table)
    for warning in found.warnings:
        err.print(f"[yellow]warning:[/yellow] {warning}", soft_wrap=True)


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
