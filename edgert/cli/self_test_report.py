"""What `edgert doctor` says of a self-test: lines, or the parts of its JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from edgert_runtimes.conformance import Outcome

from edgert.self_test import SelfTest

MOST = 5
"""Failures of an op that are told one by one; --json has them all."""


def as_json(result: SelfTest) -> dict[str, Any]:
    """Whether it passed, the outcomes by op, and the demo model's speeds."""
    return {
        "backend": result.backend,
        "passed": result.passed,
        "seconds": result.seconds,
        "ops": {op: _op_as_json(outcomes) for op, outcomes in result.by_op().items()},
        "demo": {
            "error": result.error,
            "how": result.how,
            **{f"{each.trial.name}_tokens_per_second": each.rate for each in result.speeds},
        },
    }


def _op_as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    worst = _worst(outcomes)
    return {
        "cases": len(outcomes),
        "failures": {str(each.case): each.reason for each in outcomes if each.failed},
        "refusals": {str(each.case): each.reason for each in outcomes if each.refused},
        "error": worst and worst.error,
        "bound": worst and worst.bound,
    }


def lines(result: SelfTest) -> Iterator[str]:
    """One for each op, those that failed with their cases and why; the demo model's speed; the verdict."""
    yield f"self-test of backend {result.backend}, {len(result.outcomes)} cases against the reference:"
    for op, outcomes in result.by_op().items():
        failures = [each for each in outcomes if each.failed]
        verdict = f"FAIL, {len(failures)} of {len(outcomes)} cases" if failures else f"pass, {len(outcomes)} cases"
        worst = _worst(outcomes)
        if worst is not None:
            verdict += f", worst error {worst.error:.1e} where {worst.bound:.1e} is allowed"
        yield f"    {op}: {verdict}"
        yield from (f"        {each.case.name}: {each.reason}" for each in failures[:MOST])
        if len(failures) > MOST:
            yield f"        and {len(failures) - MOST} more, which --json names"
        refusals = Counter(each.reason for each in outcomes if each.refused)
        yield from (f"        refused in {count} cases: {reason}" for reason, count in refusals.items())
    speeds = ", ".join(f"{each.trial.name} {each.rate:.0f} tokens/s" for each in result.speeds)
    yield f"    demo model: {f'FAIL, {result.error}' if result.error else f'{speeds} ({result.how})'}"
    yield f"    {'passed' if result.passed else 'FAILED'} in {result.seconds:.0f} s"


def _worst(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The one that came nearest to its bound, or went farthest beyond it."""
    measured = (each for each in outcomes if each.error is not None)
    return max(measured, key=lambda each: (each.error or 0.0) / (each.bound or 1.0), default=None)
