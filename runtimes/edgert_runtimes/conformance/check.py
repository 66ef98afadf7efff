"""Cases one after another, whatever becomes of them: for reports."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from edgert_models.errors import UnsupportedError

from edgert_runtimes.base import Backend
from edgert_runtimes.conformance.cases import Case, compare


@dataclass(frozen=True)
class Outcome:
    """What became of a case: its error and bound where it gave numbers, and the `reason` if it failed. `refused`: the
    backend says that it does not do this, and why.
    """

    case: Case
    error: float | None = None
    bound: float | None = None
    reason: str = ""
    refused: bool = False

    @property
    def failed(self) -> bool:
        """Neither near enough nor refused."""
        return not self.refused and bool(self.reason)


def check(backend: Backend, case: Case) -> Outcome:
    """Run a case; whatever the backend raises is what became of it."""
    try:
        error, bound = compare(backend, case)
    except UnsupportedError as refusal:
        return Outcome(case, reason=str(refusal), refused=True)
    except Exception as failure:  # a driver's or a compiler's own
        return Outcome(case, reason=f"{type(failure).__name__}: {failure}")
    reason = "" if error <= bound else f"the error is {error:.1e}, at most {bound:.1e} is allowed"
    return Outcome(case, error, bound, reason) if isfinite(error) else Outcome(case, reason=reason)
