"""Whether a backend computes on this machine what it should, and how fast: what `edgert doctor --self-test` runs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from edgert_runtimes.base import Progress
from edgert_runtimes.conformance import CASES, Case, Outcome, check
from edgert_runtimes.registry import get_backend

from edgert.llm import LLM
from edgert.measure import Measurement, Phase, Trial, measure

TRIALS = (Trial(phase=Phase.PREFILL, tokens=128), Trial(phase=Phase.DECODE, tokens=32))


@dataclass(frozen=True)
class SelfTest:
    """Every case's outcome on a backend, and the speed of the bundled demo model (or `error`: why it does not run)."""

    backend: str
    outcomes: tuple[Outcome, ...]
    speeds: tuple[Measurement, ...]
    error: str
    seconds: float
    how: str = ""
    """What the demo model was computed with, as the load report has it."""

    @property
    def passed(self) -> bool:
        """Nothing failed; what the backend refuses does not count."""
        return not self.error and not any(outcome.failed for outcome in self.outcomes)

    def by_op(self) -> dict[str, list[Outcome]]:
        """Outcomes of each op, in the order of the cases."""
        found: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            found.setdefault(outcome.case.op, []).append(outcome)
        return found


def self_test(name: str, progress: Progress, cases: Iterable[Case] = CASES) -> SelfTest:
    """Run all cases, then the demo model, on the backend called `name` (or `auto`). BackendError if that cannot run
    here; whatever else goes wrong is in the result.
    """
    start = time.perf_counter()
    backend = get_backend(name)
    cases = tuple(cases)
    outcomes: list[Outcome] = []
    for case in cases:
        progress("self-test", len(outcomes), len(cases))
        outcomes.append(check(backend, case))
    speeds: tuple[Measurement, ...] = ()
    error = how = ""
    try:
        with LLM(backend=backend.name, progress=progress) as llm:
            how = llm.report.instruction_set
            speeds = tuple(measure(llm, trial) for trial in TRIALS)
    except Exception as failure:  # a driver's or a compiler's own, as in the cases
        error = f"{type(failure).__name__}: {failure}"
    return SelfTest(backend.name, tuple(outcomes), speeds, error, time.perf_counter() - start, how)
