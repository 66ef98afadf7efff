"""`edgert bench [MODEL]`: prefill, decode and first-token times of a model on this machine."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from edgert_models.errors import ContextLengthError, RequestError

from edgert.cli import options

if TYPE_CHECKING:
    from edgert_runtimes.cpu.peaks import Peaks

    from edgert import LLM
    from edgert.measure import Measurement, PhaseProfile, Trial


@options.may_be_offline
def bench(
    model: options.Model = None,
    prompt_tokens: Annotated[
        list[str] | None,
        typer.Option("--prompt-tokens", "-p", help="Tokens of the prompt; default 512. Several: 128,512."),
    ] = None,
    decode_tokens: Annotated[
        list[str] | None, typer.Option("--decode-tokens", "-n", help="Tokens to generate; default 128.")
    ] = None,
    depth: Annotated[
        list[str] | None, typer.Option("--depth", "-d", help="Tokens in the context before; default 0.")
    ] = None,
    batch: Annotated[list[str] | None, typer.Option(help="Sequences decoded at once; default 1.")] = None,
    threads: Annotated[
        list[str] | None,
        typer.Option("--threads", "-t", envvar="EDGERT_THREADS", help="Threads; several: 1,2. Default: all cores."),
    ] = None,
    only: Annotated[
        str, typer.Option(help="What to measure: pp (prefill), tg (decode), ttft (first token), llm-tg (answers).")
    ] = "pp,tg,ttft,llm-tg",
    repeat: Annotated[int, typer.Option("--repeat", "-r", min=1, help="Runs; the medians are reported.")] = 3,
    backend: options.Backend = "auto",
    context: options.Context = None,
    memory: options.Memory = None,
    kv_type: options.KvType = "auto",
    speculate: options.Speculate = "off",
    draft: options.Draft = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also where the time goes, op by op.")] = False,
    as_json: options.Json = False,
) -> None:
    """Measure prefill, decode and time to first token; medians of several runs after one that does not count."""
    from edgert.measure import profile as profiled
    from edgert.measure import trials

    wanted = trials(
        _phases(only),
        prompts=options.counts("--prompt-tokens", prompt_tokens or ["512"]),
        decodes=options.counts("--decode-tokens", decode_tokens or ["128"]),
        depths=options.counts("--depth", depth or ["0"], least=0),
        batches=options.counts("--batch", batch or ["1"]),
    )
    counts = [None] if threads is None else options.counts("--threads", threads)
    needed = _context(model, wanted, context)
    results: list[Measurement] = []
    profiles: list[PhaseProfile] = []
    peaks: list[Peaks] = []
    report: dict[str, Any] = {}
    for count in counts:
        with options.open_model(
            model,
            backend=backend,
            threads=count,
            context=needed,
            memory=memory,
            kv_type=kv_type,
            sequences=max(trial.batch for trial in wanted),
            speculate=speculate,
            draft=draft,
            quiet=as_json,
        ) as llm:
            results += _measure(llm, wanted, repeat, quiet=as_json)
            report = report or _about(llm)
            report["peak_memory_bytes"] = _peak_memory()
            report["experts"] = _expert_use(llm)
            report["speculation"] = _speculation(llm)
            if profile:
                on_session = [trial for trial in wanted if trial.phase.value in ("pp", "tg")]
                profiles += [profiled(llm, trial) for trial in on_session]
        if profiles and report["backend"] == "cpu":
            from edgert_runtimes.cpu.peaks import measure_peaks

            peaks.append(measure_peaks(results[-1].threads))
    from edgert.cli import bench_report

    if as_json:
        from edgert.cli.console import print_json

        print_json({**report, **bench_report.as_json(results, profiles, peaks)})
    else:
        bench_report.show(report, results, profiles, peaks)


def _phases(only: str) -> list[Any]:
    from edgert.measure import Phase

    known = {phase.value: phase for phase in Phase}
    words = list(dict.fromkeys(word.strip() for word in only.split(",")))
    for word in words:
        if word not in known:
            raise RequestError(f"--only: '{word}' is not one of {', '.join(known)}", parameter="only")
    return [known[word] for word in words]


def _context(model: str | None, wanted: list[Trial], given: int | None) -> int:
    """The context to open the model with. Beyond the model's own only where that was asked for."""
    from edgert.measure import trained_context
    from edgert.resolve import as_reference, resolve_model

    largest = max(wanted, key=lambda trial: trial.context)
    if given is None:
        limit = trained_context(resolve_model(as_reference(model)))
        reason = f"the model was trained for {limit}; --context {largest.context} measures all the same"
    else:
        limit, reason = given, f"--context is {given}"
    if largest.context > limit:
        raise ContextLengthError(
            f"{largest.name} needs a context of {largest.context}: {reason}",
            tokens=largest.context,
            limit=limit,
            parameter="context",
        )
    return given or largest.context


def _measure(llm: LLM, wanted: list[Trial], repeat: int, *, quiet: bool) -> list[Measurement]:
    from edgert.cli.progress import loading
    from edgert.measure import measure

    results: list[Measurement] = []
    with loading(quiet) as progress:
        for trial in wanted:
            progress("measure", len(results), len(wanted))
            results.append(measure(llm, trial, repeat))
    return results


def _about(llm: LLM) -> dict[str, Any]:
    return {
        "model": llm.path.name,
        "backend": llm.report.backend,
        "instruction_set": llm.report.instruction_set,
        "threads": llm.report.threads,
        "kv_type": llm.limits.kv_type,
        "load_seconds": llm.report.seconds,
        "weight_bytes": llm.report.weight_bytes,
        "weight_bytes_per_token": llm.weight_bytes_per_token,
        "cache_bytes": llm.report.cache_bytes,
    }


def _expert_use(llm: LLM) -> dict[str, Any] | None:
    """Where experts were when they were needed; None where all of them are where they are computed."""
    from edgert_runtimes.experts import ExpertUse, OffloadingSession

    def ask(session: object, blocks: object) -> ExpertUse | None:
        return session.expert_use() if isinstance(session, OffloadingSession) else None

    use = llm.borrow(0, ask)
    return None if use is None else {**asdict(use), "hit_rate": use.hit_rate}


def _speculation(llm: LLM) -> dict[str, Any] | None:
    """How guesses have fared; None where there were none."""
    now = llm.statistics()
    if not now.guessed_tokens:
        return None
    right = now.right_guesses / now.guessed_tokens
    return {"guessed_tokens": now.guessed_tokens, "right_guesses": now.right_guesses, "right_share": right}


def _peak_memory() -> int:
    """Bytes that the process had in memory at most, so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
