"""The session, lent to somebody else between two steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from edgert_runtimes.base import Session


@dataclass(frozen=True, slots=True)
class Room:
    """What a borrower of the session may write: blocks of its cache, and slots of recurrent states where it has any."""

    blocks: Sequence[int]
    states: Sequence[int]


@dataclass(frozen=True, eq=False, slots=True)
class Loan:
    """The session and `blocks` blocks of its cache, lent to `work` between two steps."""

    blocks: int
    work: Callable[[Session, Room], Any]
    result: Future[Any] = field(default_factory=Future)
