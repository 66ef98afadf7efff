"""`edgert evaluate MODEL TEXT`: perplexity, and the distance from another model's predictions."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from edgert_models.errors import RequestError

from edgert.cli import options
from edgert.cli.plots import check_plot, figure_of

if TYPE_CHECKING:
    from edgert import LLM
    from edgert.evaluation import Evaluation


def evaluate(
    model: options.RequiredModel,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A file of plain text (UTF-8), or '-' for stdin.")],
    reference: Annotated[
        str | None,
        typer.Option(help="A model to compare with, such as the one that MODEL was quantized from; same tokenizer."),
    ] = None,
    window: Annotated[
        int, typer.Option(help="Tokens of context; predictions in the second half of each window count.")
    ] = 512,
    windows: Annotated[int | None, typer.Option(min=1, help="Most windows; default: the whole text.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture (PNG, SVG or PDF) of how the divergence is distributed.")
    ] = None,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    memory: options.Memory = None,
    as_json: options.Json = False,
) -> None:
    """Measure how well a model predicts a text, as llama.cpp's llama-perplexity does, and with --reference how far its
    predictions are from another model's (Kullback-Leibler divergence, same likeliest token).
    """
    if plot is not None and reference is None:
        raise RequestError("--plot shows the divergence from a model: name it by --reference", parameter="plot")
    if plot is not None:
        check_plot(plot)
    content = read_text(text)
    from edgert import evaluation
    from edgert.cli.console import bar, print_json

    def opened(name: str) -> LLM:
        return options.open_model(
            name, backend=backend, threads=threads, memory=memory, context=window, sequences=1, quiet=as_json
        )

    with ExitStack() as stack:
        llm = stack.enter_context(opened(model))
        other = None if reference is None else stack.enter_context(opened(reference))
        bars = stack.enter_context(bar(as_json))
        task = bars.add_task("Evaluating", total=None)
        found = evaluation.evaluate(
            llm,
            content,
            reference=other,
            names=(Path(model).name, Path(reference or "").name),
            window=window,
            most_windows=windows,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    if plot is not None:
        _draw(found, plot)
    if as_json:
        print_json(found.plain())
        return
    _show(found)


def read_text(text: str) -> str:
    """The text; RequestError names a file that cannot be one."""
    try:
        content = sys.stdin.buffer.read() if text == "-" else Path(text).read_bytes()
    except OSError as error:
        raise RequestError(f"{text}: {error.strerror or error}", parameter="text") from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{text} is no UTF-8 text (byte {error.start})", parameter="text") from error


def _show(found: Evaluation) -> None:
    from rich.table import Table

    from edgert.cli.console import out
    from edgert.evaluation import rows

    out.print(
        f"{found.model}: {found.tokens} predictions in {found.windows} windows of {found.window} tokens", markup=False
    )
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows(found):
        table.add_row(name, value)
    out.print(table)


def _draw(found: Evaluation, path: Path) -> None:
    """The share of tokens above each divergence."""
    import numpy as np

    assert found.divergences is not None
    assert found.comparison is not None
    values = np.sort(np.maximum(found.divergences, 1e-9))
    above = 1 - np.arange(len(values)) / len(values)
    figure = figure_of()
    axes = figure.subplots()
    axes.loglog(values, above)
    marks = [("median", found.comparison.median), ("mean", found.comparison.divergence.mean)]
    marks += [("99 %", found.comparison.percentile_99), ("99.9 %", found.comparison.percentile_99_9)]
    for name, value in marks:
        axes.axvline(max(value, 1e-9), color="grey", linewidth=0.8, linestyle=":")
        place = {"transform": axes.get_xaxis_transform(), "rotation": 90, "ha": "right", "va": "bottom"}
        axes.text(max(value, 1e-9), 0.02, name, fontsize=8, **place)
    axes.set_xlabel("Kullback-Leibler divergence of the next token, nats")
    axes.set_ylabel("share of tokens above")
    axes.set_title(f"{found.model} against {found.comparison.reference}")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
