"""What is compared, the contract of programs that are, and edgert as one of them; `peers` has the others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.machine import environment
from edgert import __version__
from edgert.measure import Phase, Trial

PROMPT = "The best way to learn how a machine works is to take it apart and"
"""For the time from a process's start to its first token."""
Command = Sequence[str | Path]
_TRIAL = re.compile(r"(pp|tg|ttft)(\d+)(?:@d(\d+))?(?:[x×](\d+))?")


@dataclass(frozen=True)
class Case:
    """What is compared: a trial; or of a process its memory or its time. `unit` is what values are in."""

    name: str
    unit: str
    trial: Trial | None

    @property
    def more_is_better(self) -> bool:
        """Whether larger values are better."""
        return self.unit == "tokens/s"


def case(name: str) -> Case:
    """A test by name; ValueError for other names.

    Trials: pp512, tg128@d4096, tg128@d128×8 (or x8), ttft512. Processes: start (until the first token), load (one that
    loads the model and computes two tokens, to its end), memory (the most it has, with a prompt of 512).
    """
    if name in ("start", "load"):
        return Case(name, "s", None)
    if name == "memory":
        return Case(name, "bytes", Trial(phase=Phase.PREFILL, tokens=512))
    match = _TRIAL.fullmatch(name)
    if match is None:
        raise ValueError(f"'{name}' is not a test: pp512, tg128@d4096, tg128@d128x8, ttft512, start, load or memory")
    phase, tokens, depth, batch = Phase(match[1]), int(match[2]), int(match[3] or 0), int(match[4] or 1)
    trial = Trial(phase=phase, tokens=tokens, depth=depth, batch=batch)
    return Case(trial.name, "s" if phase is Phase.FIRST_TOKEN else "tokens/s", trial)


class RunError(Exception):
    """A program could not be measured; the message says why."""


@dataclass(frozen=True)
class Finished:
    """A process that ended well. `first` is when it first wrote to stdout; `peak` the most memory it had."""

    stdout: str
    stderr: str
    seconds: float
    first: float
    peak: int


def run(command: Command, timeout: float) -> Finished:
    """Run a process to its end, in an empty folder, since some leave logs. `RunError` if it fails or takes too long."""
    words = [str(word) for word in command]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        try:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd=folder, env=environment()
            )
        except OSError as error:
            raise RunError(f"{words[0]}: {error.strerror}") from None
        assert child.stdout is not None
        timer = threading.Timer(timeout, child.kill)
        timer.start()
        out = child.stdout.read(1)
        first = time.perf_counter() - start
        out += child.stdout.read()
        child.stdout.close()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    if child.returncode:
        late = f" after {timeout:.0f} s" if seconds >= timeout else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        telling = [line for line in lines if re.search("error|assert", line, re.IGNORECASE)]
        said = f": {(telling[:1] or lines[-1:])[0][:200]}" if lines else ""
        raise RunError(f"{Path(words[0]).name} ended with {child.returncode}{late}{said}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Finished(out.decode(errors="replace"), text, seconds, first, peak)


class Program(Protocol):
    """A program that can be compared.

    It may have variants: flags of which the best depends on machine and model. Each case is measured with all of them,
    and only the best counts.
    """

    name: str
    version: str
    """Known at the latest when something has been measured."""

    def measure(self, case: Case, model: Path, threads: int, timeout: float) -> dict[str, float]:
        """The value of one run for each variant, by its flags. `RunError` where it cannot do it."""


class Edgert:
    """The edgert that this Python imports, through `edgert bench` and `edgert generate`."""

    name = "edgert"

    def __init__(self, commit: str | None) -> None:
        self.version = __version__ + (f" ({commit})" if commit else "")

    def measure(self, case: Case, model: Path, threads: int, timeout: float) -> dict[str, float]:
        """See Program; no variants."""
        start: Command = [sys.executable, "-m", "edgert"]
        if case.name == "start":
            asked: Command = [model, PROMPT, "-n", "1", "--temperature", "0", "--threads", str(threads)]
            return {"": run([*start, "generate", *asked], timeout).first}
        trial = case.trial or Trial(phase=Phase.DECODE, tokens=1)
        size = "-p" if trial.phase in (Phase.PREFILL, Phase.FIRST_TOKEN) else "-n"
        command = [*start, "bench", model, "--json", "-r", "1", "-t", str(threads), "--kv-type", "f16"]
        command += ["--only", trial.phase.value, size, str(trial.tokens), "--context", str(trial.context)]
        if trial.phase in (Phase.PREFILL, Phase.DECODE):
            command += ["-d", str(trial.depth), "--batch", str(trial.batch)]
        done = run(command, timeout)
        test = json.loads(done.stdout)["tests"][0]
        by_name = {"load": done.seconds, "memory": float(done.peak)}
        value = test["seconds"][0] if trial.phase is Phase.FIRST_TOKEN else test["runs"][0]
        return {"": by_name.get(case.name, float(value))}
