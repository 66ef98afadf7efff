"""Where the time goes on a GPU, kernel by kernel, against what its memory can give; prints JSON.

    python -m benchmarks.cuda MODEL.gguf [--prompt 512] [--tokens 64] [--depth 0] [--batch 1] [--memory 8GiB]

Rates are measured as the engine runs steps: decoding from graphs. Profiles launch the same kernels one by one, with the
GPU's clock read around each: they say what a kernel takes, not what a step does. `of_bandwidth` is the share of the
bandwidth that the driver tells (clock of the memory times width of its bus); bytes are those of weights and of cached
keys and values, each counted once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edgert_runtimes.base import OpTime
from edgert_runtimes.experts import ExpertUse, OffloadingSession

from benchmarks import machine
from edgert import LLM
from edgert.cli.options import byte_count
from edgert.measure import Phase, PhaseProfile, Trial, measure, profile


def figures(op: OpTime, bandwidth: int, whole: float) -> dict[str, Any]:
    """One kernel's calls, seconds, and how near its reading comes to what the memory gives."""
    read = op.bytes / op.seconds if op.seconds else 0.0
    return {
        "kernel": op.name,
        "calls": op.calls,
        "microseconds_each": 1e6 * op.seconds / op.calls,
        "share": op.seconds / whole,
        "gigabytes_per_second": read / 1e9,
        "of_bandwidth": read / bandwidth if bandwidth else None,
        "teraoperations_per_second": op.operations / op.seconds / 1e12 if op.seconds else 0.0,
    }


def table(found: PhaseProfile, bandwidth: int) -> dict[str, Any]:
    """All kernels of a trial, what took longest first."""
    whole = sum(op.seconds for op in found.ops)
    rows = [figures(op, bandwidth, whole) for op in found.ops]
    return {"trial": found.trial.name, "kernel_seconds": whole, "kernels": rows}


def expert_use(llm: LLM) -> ExpertUse | None:
    """Where experts were, if not all are on the GPU."""
    ask = lambda session, room: session.expert_use() if isinstance(session, OffloadingSession) else None  # noqa: E731
    return llm.borrow(0, ask)


def bandwidth_of(llm: LLM) -> int:
    """Bytes a second of the GPU's memory, 0 where the session does not know."""
    return int(llm.borrow(0, lambda session, room: getattr(session, "bandwidth", 0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--memory", type=byte_count)
    parser.add_argument("--backend", default="cuda", help="another one to try the script itself")
    options = parser.parse_args()
    trials = [
        Trial(phase=Phase.PREFILL, tokens=options.prompt),
        Trial(phase=Phase.DECODE, tokens=options.tokens, depth=options.depth, batch=options.batch),
    ]
    context = max(trial.context for trial in trials)
    with LLM(
        options.model, backend=options.backend, context=context, memory=options.memory, sequences=options.batch
    ) as llm:
        bandwidth = bandwidth_of(llm)
        rates = {trial.name: measure(llm, trial).rate for trial in trials}
        tables = [table(profile(llm, trial), bandwidth) for trial in trials]
        use = expert_use(llm)
        report = {
            "commit": machine.commit(),
            "machine": machine.machine(),
            "model": machine.model(options.model),
            "instruction_set": llm.report.instruction_set,
            "bandwidth_bytes_per_second": bandwidth,
            "weight_bytes_per_token": llm.weight_bytes_per_token,
            "tokens_per_second": rates,
            "expert_hit_rate": None if use is None else use.hit_rate,
            "profiles": tables,
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
