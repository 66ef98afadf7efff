"""`edgert evaluate MODEL TEXT`: perplexity, and the distance from another model's predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from edgert_models.errors import RequestError

from edgert.cli import options
from edgert.cli.generate import read_stdin
from edgert.cli.plots import check_plot, figure_of

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from edgert import LLM
    from edgert.evaluation import Evaluation
    from edgert.predictions import Predictions
    from edgert.receipt import Receipt

WINDOW = 512  # as in edgert.windows, which is imported with NumPy


@options.may_be_offline
def evaluate(
    model: options.RequiredModel,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="[TEXT]",
            help="A file of plain text (UTF-8), or '-' for stdin; not needed beside stored predictions.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="What to compare with: a model with the same tokenizer, such as the one that MODEL was quantized "
            "from, or predictions that --save-predictions has stored."
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            help="Tokens of context; predictions in the second half of each window count. "
            "Default: 512, or that of stored predictions."
        ),
    ] = None,
    windows: Annotated[int | None, typer.Option(min=1, help="Most windows; default: the whole text.")] = None,
    save_predictions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Store what MODEL predicts, for --reference and edgert verify.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Tokens to list for each stored prediction, likeliest first.")
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Write the figures into MODEL, for edgert inspect and edgert verify. The predictions of a reference "
            "that is a model are stored beside MODEL for that.",
        ),
    ] = False,
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
    for option, wanted, reason in (
        ("plot", plot is not None, "shows the divergence from a model"),
        ("record", record, "writes down the distance from a model"),
    ):
        if wanted and reference is None:
            raise RequestError(f"--{option} {reason}: name it by --reference", parameter=option)
    if plot is not None:
        check_plot(plot)
    if top is not None and save_predictions is None and not record:
        raise RequestError("--top is for stored predictions: give --save-predictions or --record", parameter="top")
    from edgert.cli.console import bar, print_json

    with bar(as_json) as bars:
        job = _Job(
            model=model,
            content=None if text is None else read_text(text),
            reference=reference,
            sizes={"window": window, "windows": windows, "top": top},
            opening={"backend": backend, "threads": threads, "memory": memory, "quiet": as_json},
            bars=bars,
        )
        found, receipt = job.run(save_predictions, record)
    if plot is not None:
        _draw(found, plot)
    if as_json:
        print_json(found.plain() | ({} if receipt is None else {"receipt": asdict(receipt)}))
        return
    _show(found)
    if receipt is not None:
        from edgert.cli.console import out

        out.print(f"recorded in {model}, to be verified with {receipt.predictions}", markup=False, soft_wrap=True)


@dataclass(kw_only=True)
class _Job:
    """What the command was asked for. One model is open at a time, unless both are compared side by side."""

    model: str
    content: str | None
    reference: str | None
    sizes: Mapping[str, int | None]
    opening: Mapping[str, Any]
    bars: Bar

    def run(self, save: Path | None, record: bool) -> tuple[Evaluation, Receipt | None]:
        """Evaluate, store and record."""
        from edgert.evaluation import evaluate
        from edgert.predictions import TOP, Predictions, is_predictions
        from edgert.receipt import record_receipt
        from edgert.resolve import as_reference, resolve_model

        path = resolve_model(as_reference(self.model))
        stored = None if self.reference is None or not is_predictions(self.reference) else Path(self.reference)
        if stored is None and self.content is None:
            raise RequestError("name a text, or stored predictions of one by --reference", parameter="text")
        if stored is None and record:
            stored = self._stored_beside(path)
        with ExitStack() as stack:
            reference: LLM | Predictions | None = None
            window = self.sizes["window"]
            if stored is not None:
                reference = stack.enter_context(Predictions.open(stored))
                window = window or reference.window
            elif self.reference is not None:
                reference = stack.enter_context(self._opened(self.reference))
            with self._opened(self.model, window) as llm:
                found = evaluate(
                    llm,
                    self.content,
                    reference=reference,
                    names=(Path(self.model).name, Path(self.reference or "").name),
                    window=window,
                    most_windows=self.sizes["windows"],
                    save=save,
                    top=self.sizes["top"] or TOP,
                    progress=self._bar("Evaluating"),
                )
                backend = llm.report.backend
            if not record:
                return found, None
            assert isinstance(reference, Predictions)
            return found, record_receipt(path, found, reference, backend=backend, progress=self._bar("Recording"))

    def _stored_beside(self, path: Path) -> Path:
        """The reference's predictions, stored beside the model; RequestError where there are some already."""
        from edgert.predictions import TOP, record_predictions
        from edgert.receipt import predictions_path

        target = predictions_path(path)
        if target.exists():
            reason = f"there is {target} already: give it as --reference, or remove it"
            raise RequestError(reason, parameter="reference")
        assert self.reference is not None
        assert self.content is not None
        with self._opened(self.reference) as llm:
            record_predictions(
                llm,
                self.content,
                target,
                window=self.sizes["window"] or WINDOW,
                windows=self.sizes["windows"],
                top=self.sizes["top"] or TOP,
                name=Path(self.reference).name,
                progress=self._bar("Reference"),
            )
        return target

    def _opened(self, name: str, window: int | None = None) -> LLM:
        context = window or self.sizes["window"] or WINDOW
        return options.open_model(name, context=context, sequences=1, **self.opening)

    def _bar(self, title: str) -> Callable[[int, int], None]:
        task = self.bars.add_task(title, total=None)
        return lambda done, total: self.bars.update(task, completed=done, total=total)


def read_text(text: str) -> str:
    """The text of a file, or of stdin for '-'; RequestError names what cannot be one."""
    from edgert_quant import files

    return read_stdin("text") if text == "-" else files.read_text(text, "text")


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
