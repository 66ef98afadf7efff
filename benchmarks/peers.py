"""llama.cpp and ik_llama.cpp: how their programs are asked for a case, and how their answers are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.programs import PROMPT, Case, Command, Finished, RunError, run
from edgert.measure import Phase, Trial

BATCH_LINE = re.compile(r"^\|(?:\s*[\d.]+\s*\|){10}\s*$", re.MULTILINE)
TRIES = 10
TWO_TOKENS = Trial(phase=Phase.DECODE, tokens=1)
"""What a process computes whose loading is timed: one token to warm up, and one that is measured."""


@dataclass(frozen=True)
class Tools:
    """The programs of a peer; what is None is not measured."""

    bench: Path | None = None
    batched: Path | None = None
    complete: Path | None = None

    def need(self, which: str) -> Path:
        """One of them, or RunError."""
        path: Path | None = getattr(self, which)
        if path is None:
            raise RunError(f"no program was given for it ({which})")
        return path


@dataclass(frozen=True)
class Loading:
    """A variant that needs the model loaded anew: its name, its flags for llama-bench, and those for other programs."""

    name: str
    bench: tuple[str, ...]
    others: tuple[str, ...]


def answered(command: Command, timeout: float, value: Callable[[Finished], float | None]) -> float:
    """The value of a run. llama.cpp's programs write through a log that may lose its last lines when they exit: then
    they are run again.
    """
    for _ in range(TRIES):
        found = value(run(command, timeout))
        if found is not None:
            return found
    raise RunError(f"{Path(command[0]).name} printed no result")


class LlamaCpp:
    """llama.cpp: weights repacked for the CPU or not, flash attention or not."""

    name = "llama.cpp"
    loadings = (
        Loading("repack=1", ("--repack", "1"), ("--repack",)),
        Loading("repack=0", ("--repack", "0"), ("--no-repack",)),
    )
    attentions: tuple[str, ...] = ("on", "off")
    completion: tuple[str, ...] = ("-no-cnv", "--no-display-prompt", "--no-warmup")
    batched_format: tuple[str, ...] = ("--output-format", "jsonl")

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.version = "unknown"

    def measure(self, case: Case, model: Path, threads: int, timeout: float) -> dict[str, float]:
        """See Program. The time to a first token is that of computing the prompt: nothing of sampling is in it."""
        if case.name == "start":
            return self._start(model, threads, timeout)
        if case.trial is not None and case.trial.batch > 1:
            return self._batched(case.trial, model, threads, timeout)
        found = {}
        trial = case.trial or TWO_TOKENS
        process = case.name in ("load", "memory")
        attention = ",".join(self.attentions[:1] if process else self.attentions)
        for loading in self.loadings:
            program: Command = [
                self.tools.need("bench"),
                "-m",
                model,
                "-t",
                str(threads),
                "-r",
                "1",
                "-o",
                "json",
            ]
            done = run([*program, *loading.bench, "-fa", attention, *self.sizes(trial)], timeout)
            for item in json.loads(done.stdout):
                self.version = f"{item['build_number']} ({item['build_commit']})"
                rate = float(item["avg_ts"])
                value = trial.tokens / rate if trial.phase is Phase.FIRST_TOKEN else rate
                value = {"load": done.seconds, "memory": float(done.peak)}.get(case.name, value)
                found[f"{loading.name} fa={int(item['flash_attn'])}"] = value
        return found

    def sizes(self, trial: Trial) -> Sequence[str]:
        """Flags of llama-bench for a trial."""
        if trial.phase is Phase.DECODE:
            return ("-p", "0", "-n", str(trial.tokens), "-d", str(trial.depth))
        return ("-p", str(trial.tokens), "-n", "0", "-d", str(trial.depth))

    def batched_rate(self, done: Finished) -> float | None:
        """Tokens per second of all sequences, out of what llama-batched-bench printed; None where it printed none."""
        lines = (line for line in done.stdout.splitlines() if line.startswith("{"))
        return next((float(json.loads(line)["speed_tg"]) for line in lines), None)

    def _start(self, model: Path, threads: int, timeout: float) -> dict[str, float]:
        found = {}
        for loading in self.loadings:
            program: Command = [self.tools.need("complete"), "-m", model, *self.completion, *loading.others]
            command = [*program, "-p", PROMPT, "-n", "1", "--temp", "0", "-t", str(threads)]
            found[loading.name] = answered(command, timeout, lambda done: done.first if done.stdout else None)
        return found

    def _batched(self, trial: Trial, model: Path, threads: int, timeout: float) -> dict[str, float]:
        found = {}
        prompt = max(1, trial.depth)
        sizes = ("-npp", str(prompt), "-ntg", str(trial.tokens), "-npl", str(trial.batch))
        context = ("-c", str(trial.batch * (prompt + trial.tokens)), "-b", "2048", "-ub", "512")
        for loading, attention in product(self.loadings, ("on", "off")):
            program: Command = [
                self.tools.need("batched"),
                "-m",
                model,
                "-t",
                str(threads),
                "-tb",
                str(threads),
            ]
            flags = (*loading.others, "-fa", attention, *sizes, *context, *self.batched_format)
            rate = answered([*program, *flags], timeout, self.batched_rate)
            found[f"{loading.name} fa={int(attention == 'on')}"] = rate
        return found


class IkLlama(LlamaCpp):
    """ik_llama.cpp: weights repacked at run time or not, flash attention or not; experts always fused."""

    name = "ik_llama.cpp"
    loadings = (
        Loading("rtr=1", ("-rtr", "1", "-fmoe", "1"), ("-rtr",)),
        Loading("rtr=0", ("-rtr", "0", "-fmoe", "1"), ()),
    )
    attentions = ("1", "0")
    completion = ("--no-display-prompt",)
    batched_format = ()

    def sizes(self, trial: Trial) -> Sequence[str]:
        """See LlamaCpp; -gp computes a prompt, and measures what is generated after it."""
        if trial.phase is Phase.DECODE and trial.depth:
            return ("-p", "0", "-n", "0", "-gp", f"{trial.depth},{trial.tokens}")
        if trial.depth:
            raise RunError("its llama-bench has no prompts at a depth")
        return super().sizes(trial)[:4]

    def batched_rate(self, done: Finished) -> float | None:
        """See LlamaCpp; the eighth column of a table on stderr."""
        match = BATCH_LINE.search(done.stdout + done.stderr)
        return None if match is None else float(match[0].split("|")[8])
