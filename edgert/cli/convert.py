"""`edgert convert SOURCE OUTPUT`: a checkpoint or a GGUF becomes a (quantized) GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from edgert_models.errors import RequestError

from edgert.cli import options, tune

if TYPE_CHECKING:
    from edgert_quant.convert import ConversionReport
    from rich.table import Table


def convert(
    source: Annotated[str, typer.Argument(help="A checkpoint folder, a hub id in the local cache, or a GGUF file.")],
    output: Annotated[Path, typer.Argument(help="The GGUF file to write.")],
    type_name: Annotated[
        str | None,
        typer.Option(
            "--type",
            "-t",
            help="f32, f16, bf16, q8_0, q6_k … q2_k_s, iq4_nl, iq4_xs, iq3_m … iq1_s, q4_0, mxfp4_moe, tq2_0, tq1_0, "
            "or native: as the source has it; see docs/convert.md. Default: native for a checkpoint that is quantized "
            "already, else q4_k_m.",
        ),
    ] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option(
            help="An exception, such as 'blk.*.ffn_down_exps=q6_k'; may be given several times, later ones prevail."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model; default: its folder's name.")] = None,
    imatrix: Annotated[
        Path | None, typer.Option(help="An importance matrix of the model, from edgert calibrate or llama-imatrix.")
    ] = None,
    min_tokens_per_expert: Annotated[
        int | None, typer.Option(min=1, help="Fail where an expert has seen fewer tokens in the importance matrix.")
    ] = None,
    distilled_from: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A teacher of the model: a name, hub id or address, to be noted in the file."
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A data set that it was distilled on, to be noted too.")
    ] = None,
    calibration: tune.Calibration = None,
    budget: tune.Budget = None,
    bits: tune.Bits = None,
    plan: tune.Plan = None,
    save_plan: tune.SavePlan = None,
    only_plan: tune.OnlyPlan = False,
    plot: tune.Plot = None,
    compensate: tune.Compensate = True,
    finish: tune.Finish = 0,
    teacher: tune.Teacher = None,
    window: tune.Window = 256,
    tokens: tune.Tokens = None,
    work: tune.Work = None,
    keep_work: tune.KeepWork = False,
    threads: options.Threads = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output.")] = True,
    parity: Annotated[bool, typer.Option(help="Fail where the GGUF form of the tokenizer differs.")] = True,
    mtp: Annotated[
        bool | None,
        typer.Option(
            help="Keep a checkpoint's layers for multi-token prediction, or not. Default: where llama.cpp loads the "
            "file with them.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Convert a Hugging Face checkpoint (or another GGUF) to a GGUF that edgert and llama.cpp load."""
    wishes = tune.Wishes(
        calibration=calibration,
        budget=budget,
        bits=bits,
        plan=plan,
        save_plan=save_plan,
        only_plan=only_plan,
        plot=plot,
        compensate=compensate,
        finish=finish,
        teacher=teacher,
        window=window,
        tokens=tokens,
        work=work,
        keep_work=keep_work,
    )
    more: dict[str, Any] = {"tensors": tensor or (), "name": name, "overwrite": overwrite, "parity": parity}
    more |= {"distilled_from": distilled_from or (), "datasets": dataset or ()}
    if wishes.wanted():
        if imatrix is not None or min_tokens_per_expert is not None:
            raise RequestError(
                "--imatrix and its options are not for --calibration, which measures importance itself",
                parameter="imatrix",
            )
        if mtp is not None:
            raise RequestError(
                "--mtp and --no-mtp are not for --calibration: convert the checkpoint with them first, then that file",
                parameter="mtp",
            )
        tune.run(source, output, wishes, type_name, threads, as_json=as_json, **more)
        return
    from edgert_quant.convert import convert as run

    from edgert.cli.console import bar, err, out, print_json

    with bar(quiet=as_json) as progress:
        task = progress.add_task("Converting", total=None)

        def report(done: int, total: int, name: str) -> None:
            progress.update(task, completed=done, total=total, description=name)

        result = run(
            source,
            output,
            type=type_name,
            plan=plan,
            threads=threads,
            progress=report,
            imatrix=imatrix,
            min_tokens_per_expert=min_tokens_per_expert,
            mtp=mtp,
            **more,
        )
    if as_json:
        print_json(result.to_dict())
        return
    out.print(summary(result))
    for warning in result.warnings:
        err.print(f"[yellow]warning:[/yellow] {warning}")


def summary(report: ConversionReport) -> Table:
    """Tensors by type, with bytes, and the whole in the last row."""
    from rich.table import Table

    from edgert.cli.console import size

    title = f"{report.output}: {report.architecture}, {report.recipe}"
    table = Table(title=title, title_justify="left", caption=f"{report.seconds:.1f} s", show_footer=True)
    table.add_column("type", footer="all")
    table.add_column("tensors", justify="right", footer=str(report.tensors))
    table.add_column("size", justify="right", footer=size(report.bytes))
    table.add_column("bits per weight", justify="right", footer=f"{report.bits_per_weight:.2f}")
    for total in report.types:
        bits = 8 * total.bytes / total.weights
        table.add_row(total.type, str(total.tensors), size(total.bytes), f"{bits:.2f}")
    return table
