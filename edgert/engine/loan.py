"""The session, lent to somebody else between two steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from edgert_runtimes.base import Session


@dataclass(frozen=True, slots=True)
class Room:
    """What a borrower of the session may write: blocks of its cache, and where it has any, slots of recurrent states
    and blocks of layers with a window, which is as `reach` says (see `Plan.reach`).
    """

    blocks: Sequence[int]
    states: Sequence[int]
    windows: Sequence[int] = ()
    reach: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Loan:
    """The session and `blocks` blocks of its cache, lent to `work` between two steps."""

    blocks: int
    work: Callable[[Session, Room], Any]
    result: Future[Any] = field(default_factory=Future)
