"""The figures that the CUDA backend is to reach on one H200-class GPU, in a run that fits into fifteen minutes: a line
of JSON for each figure as soon as it is there, then profiles by kernel against the memory's bandwidth.

    python -m benchmarks.cuda_reach FOLDER [--write] [--seconds 840] [--only qwen3] [--backend cuda]

Models have the shapes of the real ones and random weights. They are written to FOLDER (40 GB for all) unless they are
there: do that beforehand, with `--write`, which needs no GPU. Rates are those of answers, as the engine gives them, and
of prompts; `of_bandwidth` is the share of the bandwidth that reading a token's weights takes. What there was no time
for is said. Run `benchmarks.cuda_first_run` before, and `benchmarks.compare` beside llama.cpp after.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.cuda import bandwidth_of, table
from benchmarks.synthetic import SHAPES, write
from edgert import LLM
from edgert.measure import Phase, Trial, measure, profile


@dataclass(frozen=True)
class Figure:
    """A trial, and the tokens a second or the share of the bandwidth that it is to reach."""

    trial: Trial
    rate: float = 0.0
    of_bandwidth: float = 0.0


@dataclass(frozen=True)
class Model:
    """A shape and type of `benchmarks.synthetic`, and its figures."""

    shape: str
    type: str
    figures: tuple[Figure, ...]

    def path(self, folder: Path) -> Path:
        """Where its file is."""
        return folder / f"{self.shape}-{self.type}.gguf"


def answer(tokens: int, batch: int = 1) -> Trial:
    """Tokens one after another, through the engine."""
    return Trial(phase=Phase.ANSWER, tokens=tokens, batch=batch)


MODELS = (
    Model(
        "qwen3",
        "q4_k_m",
        (
            Figure(answer(256), rate=300),
            Figure(answer(128, batch=32), rate=2500),
            Figure(Trial(phase=Phase.PREFILL, tokens=4096), rate=15000),
        ),
    ),
    Model("gpt-oss", "mxfp4", (Figure(answer(256), rate=350),)),
    Model("llama", "q4_k_m", (Figure(answer(256), of_bandwidth=0.7),)),
)


def reach(llm: LLM, figure: Figure, bandwidth: int) -> dict[str, Any]:
    """One figure, beside what it is to be."""
    rate = measure(llm, figure.trial).rate
    share = rate / figure.trial.batch * llm.weight_bytes_per_token / bandwidth if bandwidth else None
    found: dict[str, Any] = {"trial": figure.trial.name, "tokens_per_second": rate, "of_bandwidth": share}
    if figure.rate:
        return {**found, "wanted": figure.rate, "reached": rate >= figure.rate}
    return {**found, "wanted": figure.of_bandwidth, "reached": share is not None and share >= figure.of_bandwidth}


def profiled(figures: Sequence[Figure]) -> list[Trial]:
    """What is profiled of a model: steps of decoding alone and in company, and a prompt."""
    batches = {figure.trial.batch for figure in figures if figure.trial.phase is Phase.ANSWER}
    found = [Trial(phase=Phase.DECODE, tokens=4, depth=16, batch=batch) for batch in sorted(batches)]
    return [*found, Trial(phase=Phase.PREFILL, tokens=512)]


def run(model: Model, folder: Path, backend: str, until: float) -> Iterator[dict[str, Any]]:
    """The figures of a model, then its profiles, as far as there is time."""
    trials = [figure.trial for figure in model.figures] + profiled(model.figures)
    sequences, context = max(trial.batch for trial in trials), max(trial.context for trial in trials)
    begin = time.monotonic()
    with LLM(model.path(folder), backend=backend, context=context, sequences=sequences) as llm:
        yield {"loaded_in_seconds": time.monotonic() - begin, "instruction_set": llm.report.instruction_set}
        bandwidth = bandwidth_of(llm)
        for figure in model.figures:
            left = time.monotonic() < until
            yield reach(llm, figure, bandwidth) if left else {"trial": figure.trial.name, "left_out": "no time"}
        for trial in profiled(model.figures):
            left = time.monotonic() < until
            yield table(profile(llm, trial), bandwidth) if left else {"trial": trial.name, "left_out": "no time"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=840, help="when to leave out what is left")
    parser.add_argument("--only", choices=[model.shape for model in MODELS], help="one of the models")
    parser.add_argument("--write", action="store_true", help="write what is not there, and no more")
    parser.add_argument("--backend", default="cuda", help="another one to try the script itself")
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    models = [model for model in MODELS if options.only in (None, model.shape)]
    for model in models:
        path = model.path(options.folder)
        if not path.exists():
            write(SHAPES[model.shape], model.type, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
    if options.write:
        return
    print(json.dumps({"commit": machine.commit(), "machine": machine.machine()}), flush=True)
    for model in models:
        for found in run(model, options.folder, options.backend, until):
            print(json.dumps({"model": model.shape, "type": model.type, **found}), flush=True)


if __name__ == "__main__":
    main()
