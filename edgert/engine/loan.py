"""The session, lent to somebody else between two steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from edgert_models.errors import RequestError
from edgert_runtimes.base import Session

from edgert.engine.blocks import Table
from edgert.engine.scheduler import Scheduler


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


def serve(loan: Loan, session: Session, scheduler: Scheduler, keep_evicted: Callable[[], None]) -> None:
    """Do the work of a loan, on the engine's thread. What gives way to it is kept first."""
    pool, table = scheduler.pool, Table()
    states, windows = list[int](), list[int]()
    try:
        if loan.blocks > pool.available:
            reason = f"{loan.blocks} blocks of the cache are wanted, {pool.available} of {pool.size} are free"
            raise RequestError(reason, parameter="blocks")
        pool.grow(table, loan.blocks)
        if loan.blocks:
            states, windows = scheduler.states.lend(), scheduler.windows.lend()
        keep_evicted()
        result = loan.work(session, Room(tuple(table.blocks), tuple(states), tuple(windows), scheduler.windows.reach))
    except BaseException as error:
        loan.result.set_exception(error)
    else:
        loan.result.set_result(result)
    finally:
        pool.close(table, (), 0)
        scheduler.states.give_back(states)
        scheduler.windows.give_back(windows)
