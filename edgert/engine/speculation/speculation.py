"""How many tokens to guess for whom: as many as pay."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgert.engine.request import Request
from edgert.engine.speculation.base import Proposer

_log = logging.getLogger("edgert.engine")
_MOST = 8
_WEIGHT = 0.2  # of what was measured last in a running mean
_QUICK = 0.3  # of a guess that was right or wrong, so that a few wrong ones at the beginning of an answer are the last
_KNOWN = 4  # plain steps of as many requests, before the first that is not
_TRY = 64  # steps after which what did not pay is tried again, and a plain step measured


class Mean:
    """A running mean of what was measured lately; None before anything was."""

    def __init__(self) -> None:
        self.value: float | None = None
        self.count = 0

    def note(self, measured: float) -> None:
        """One more measurement; one that is far above the others (something else had the processor) counts less."""
        self.count += 1
        value = self.value
        self.value = measured if value is None else value + _WEIGHT * (min(measured, 2 * value) - value)


@dataclass(slots=True)
class _Record:
    """How guesses for one request have fared: the share of them that was right, and steps without any."""

    right: float = 0.5
    without: int = 0


class Speculation:
    """Asks a proposer for as many tokens as pay, judged by what was measured: the time that one more row adds to a
    step, and the share of a request's guesses that were right. With `always` every request has `most` each time. One
    that fails is not asked again.

    One more row pays while the chance that it counts, times what a token costs without it, is more than the row adds.
    """

    def __init__(self, proposer: Proposer, *, most: int = _MOST, always: bool = False) -> None:
        self._proposer = proposer
        self._most = most
        self._always = always
        self._records: dict[Request, _Record] = {}
        self._plain: dict[int, Mean] = {}  # seconds of a step without guesses, by its rows
        self._row = Mean()  # seconds that a row of guesses adds to a step, with those it took to guess
        self._guessing = 0.0  # seconds of the last time
        self._steps = 0
        self._failed = False

    def propose(self, requests: Sequence[Request], rows: int) -> list[list[int]]:
        """Guesses for requests that have a step together, in which `rows` more have room."""
        self._steps += 1
        self._guessing = 0.0
        share = rows // len(requests)
        most = [min(self._wanted(request, len(requests)), share, _left(request)) for request in requests]
        if self._failed or not any(most):
            return [[] for _ in requests]
        begin = time.monotonic()
        try:
            found = self._proposer.propose(requests, most)
        except Exception:
            _log.exception("speculation failed; it goes on without")
            self._failed = True
            return [[] for _ in requests]
        self._guessing = time.monotonic() - begin
        return found

    def note_step(self, requests: int, guessed: int, seconds: float) -> None:
        """A step of so many decoding requests, and so many guesses, took so long."""
        plain = self._plain.setdefault(requests, Mean())
        if not guessed:
            plain.note(seconds)
        elif plain.value is not None:
            self._row.note(max(0.0, (seconds + self._guessing - plain.value) / guessed))

    def note_guesses(self, request: Request, guessed: int, right: int) -> None:
        """Of the guesses for a request so many were right; those after the first wrong one do not count."""
        record = self._records.setdefault(request, _Record())
        judged = min(guessed, right + 1)
        record.right += (1.0 - (1.0 - _QUICK) ** judged) * (right / judged - record.right)

    def forget(self, request: Request) -> None:
        """The request has ended."""
        self._records.pop(request, None)
        self._proposer.forget(request)

    def close(self) -> None:
        """Give everything back."""
        self._proposer.close()

    def _wanted(self, request: Request, requests: int) -> int:
        """How many guesses are worth their rows."""
        if self._always:
            return self._most
        plain = self._plain.setdefault(requests, Mean())
        if plain.value is None or plain.count < _KNOWN or self._steps % _TRY == 0:
            return 0
        record = self._records.setdefault(request, _Record())
        if self._row.value is None:
            return self._most
        needed = self._row.value * requests / plain.value
        count, chance = 0, record.right
        while count < self._most and chance > needed:
            count, chance = count + 1, chance * record.right
        record.without = 0 if count else record.without + 1
        return count if count or record.without % _TRY else 1


def _left(request: Request) -> int:
    """Tokens that may come after the next one."""
    return request.limit - len(request.history) - 1
