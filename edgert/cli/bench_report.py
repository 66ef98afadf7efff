"""What `edgert bench` prints: tables, or the parts of its JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from edgert_runtimes.base import OpTime
from edgert_runtimes.cpu.peaks import Peaks
from rich.table import Column, Table

from edgert.cli.console import out, size
from edgert.measure import Measurement, Phase, PhaseProfile

LITTLE = 0.005
"""Share of a run's time below which an op is not worth a row."""


def as_json(results: Sequence[Measurement], profiles: Sequence[PhaseProfile], peaks: Sequence[Peaks]) -> dict[str, Any]:
    """Headlines (the first trial of each kind, of one sequence; None where there is none), every measurement, and
    profiles with the machine's limits.
    """
    prefill, decode, first = (_first(results, phase) for phase in (Phase.PREFILL, Phase.DECODE, Phase.FIRST_TOKEN))
    found: dict[str, Any] = {
        "prefill_tokens_per_second": prefill and prefill.rate,
        "decode_tokens_per_second": decode and decode.rate,
        "time_to_first_token_seconds": first and median(first.seconds),
        "llm_overhead_seconds_per_token": _overhead(results),
        "tests": [_test(result) for result in results],
    }
    if profiles:
        found["profile"] = [_profile(item) for item in profiles]
        found["peaks"] = [
            {
                "threads": peak.threads,
                "read_bytes_per_second": peak.read_bytes,
                "int8_operations_per_second": peak.int8_operations,
                "float32_operations_per_second": peak.float_operations,
            }
            for peak in peaks
        ]
    return found


def _first(results: Sequence[Measurement], phase: Phase) -> Measurement | None:
    return next((result for result in results if result.trial.phase is phase and result.trial.batch == 1), None)


def _overhead(results: Sequence[Measurement]) -> float | None:
    """Seconds that a token takes longer through the LLM, where both ways were measured alike."""
    answer, decode = _first(results, Phase.ANSWER), _first(results, Phase.DECODE)
    if answer is None or decode is None or replace(answer.trial, phase=Phase.DECODE) != decode.trial:
        return None
    return answer.seconds_per_token - decode.seconds_per_token if answer.threads == decode.threads else None


def _test(result: Measurement) -> dict[str, Any]:
    trial, rates = result.trial, result.rates
    return {
        "test": trial.name,
        "phase": trial.phase.value,
        "tokens": trial.tokens,
        "depth": trial.depth,
        "batch": trial.batch,
        "threads": result.threads,
        "median": result.rate,
        "min": min(rates),
        "max": max(rates),
        "runs": list(rates),
        "seconds": list(result.seconds),
    }


def _profile(item: PhaseProfile) -> dict[str, Any]:
    return {
        "test": item.trial.name,
        "threads": item.threads,
        "seconds": item.seconds,
        "unaccounted_seconds": item.unaccounted,
        "ops": [
            {
                "op": op.name,
                "calls": op.calls,
                "seconds": op.seconds,
                "bytes": op.bytes,
                "operations": op.operations,
            }
            for op in item.ops
        ],
    }


def show(
    about: Mapping[str, Any],
    results: Sequence[Measurement],
    profiles: Sequence[PhaseProfile],
    peaks: Sequence[Peaks],
) -> None:
    """Print the tables."""
    sizes = {name: size(about[name]) for name in ("weight_bytes", "weight_bytes_per_token", "peak_memory_bytes")}
    _print(f"{about['model']} on {about['backend']} ({about['instruction_set']}), cache {about['kv_type']}")
    _print(
        f"loaded in {_duration(about['load_seconds'])}; weights {sizes['weight_bytes']}, of which a token reads "
        f"{sizes['weight_bytes_per_token']}; at most {sizes['peak_memory_bytes']} in memory"
    )
    experts = about["experts"]
    if experts is not None:
        _print(
            f"{experts['resident']} of {experts['experts']} experts in the GPU's memory; of those needed "
            f"{100 * experts['hit_rate']:.1f} % were there, {experts['fetched']} were copied, the host computed "
            f"{experts['on_host']}"
        )
    speculation = about["speculation"]
    if speculation is not None:
        right = 100 * speculation["right_share"]
        _print(f"{speculation['guessed_tokens']} tokens were guessed, {right:.1f} % of them rightly")
    out.print(_results(results))
    overhead = _overhead(results)
    if overhead is not None:
        _print(f"scheduling, sampling and text: {_duration(overhead)} a token")
    for peak in peaks:
        read, codes = f"{peak.read_bytes / 1e9:.1f} GB/s", f"{peak.int8_operations / 1e9:.0f} GOPS"
        _print(f"this machine with threads={peak.threads}: {read} read from memory, {codes} in int8 products")
    for item in profiles:
        out.print()
        out.print(_ops(item, next((peak for peak in peaks if peak.threads == item.threads), None)))


def _print(line: str) -> None:
    out.print(line, markup=False, soft_wrap=True)


def _results(results: Sequence[Measurement]) -> Table:
    table = Table("test", *(_right(name) for name in ("threads", "tokens/s", "min – max", "time")))
    for result in results:
        rates = result.rates
        whole = result.trial.phase in (Phase.PREFILL, Phase.FIRST_TOKEN)
        time = _duration(median(result.seconds)) if whole else f"{_duration(result.seconds_per_token)}/token"
        spread = f"{_figure(min(rates))} – {_figure(max(rates))}"
        table.add_row(result.trial.name, str(result.threads), _figure(result.rate), spread, time)
    return table


def _ops(item: PhaseProfile, peaks: Peaks | None) -> Table:
    """Ops, what they take, and their shares of the limits. What hardly takes time is one row."""
    columns = (_right(name) for name in ("calls", "time", "share", "GB/s", "of read", "GOPS", "of int8"))
    title = f"{item.trial.name}, threads={item.threads}"
    table = Table("op", *columns, title=title, title_justify="left")
    few = [op for op in item.ops if op.seconds < LITTLE * item.seconds]
    shown = [replace(op, name=_label(op.name)) for op in item.ops if op not in few]
    for op in [*shown, *([_sum(f"{len(few)} others", few)] if few else [])]:
        time, share = _duration(op.seconds), _share(op.seconds, item.seconds)
        table.add_row(op.name, str(op.calls), time, share, *_rates(op, peaks))
    table.add_section()
    outside = _share(item.unaccounted, item.seconds)
    table.add_row("outside of ops (Python)", "", _duration(item.unaccounted), outside)
    total = replace(_sum("total", item.ops), seconds=item.seconds)
    table.add_row(total.name, str(total.calls), _duration(total.seconds), "100 %", *_rates(total, peaks))
    return table


def _sum(name: str, ops: Sequence[OpTime]) -> OpTime:
    figures = [(op.calls, op.seconds, op.bytes, op.operations) for op in ops]
    calls, seconds, read, operations = (sum(column) for column in zip(*figures, strict=True))
    return OpTime(name, int(calls), seconds, int(read), int(operations))


def _label(name: str) -> str:
    """Without what all have: "linear.linear attn_q q4_k.gemm.q8.avx2" → "linear attn_q q4_k"."""
    kernel, *rest = name.split()
    module, _, function = kernel.partition(".")
    first = function if module in (function, "rows") else kernel
    return " ".join([first, *(word.removeprefix("activation.").partition(".")[0] for word in rest)])


def _rates(op: OpTime, peaks: Peaks | None) -> list[str]:
    """GB/s, its share, GOPS, its share; nothing where an op reads or multiplies nothing that counts."""
    cells = []
    for amount, peak in (
        (op.bytes, peaks and peaks.read_bytes),
        (op.operations, peaks and peaks.int8_operations),
    ):
        rate = amount / op.seconds if op.seconds > 0 else 0.0
        cells += [_figure(rate / 1e9) if amount else "", _share(rate, peak) if amount and peak else ""]
    return cells


def _right(name: str) -> Column:
    return Column(name, justify="right", no_wrap=True)


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def _figure(value: float) -> str:
    """Three significant digits, no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if abs(seconds) * scale >= 1:
            return f"{_figure(seconds * scale)} {unit}"
    return f"{seconds * 1e6:.0f} µs"
