"""How long requests wait for what they get, as counts that a monitoring system can add up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from edgert.engine.request import Request

_WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_STEPS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)


class Histogram:
    """Values in seconds, counted by size: `counts[i]` are at most `bounds[i]`, and above the bound before; the last
    are above all. One thread notes; others may read.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def note(self, seconds: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Latencies:
    """Of requests that generate: time in the queue, time from submission to the first token, times between tokens."""

    def __init__(self) -> None:
        self.queue = Histogram(_WAITS)
        self.first_token = Histogram(_WAITS)
        self.between_tokens = Histogram(_STEPS)

    def note_start(self, request: Request) -> None:
        """A request has left the queue for its first step."""
        assert request.started_at is not None
        self.queue.note(request.started_at - request.submitted_at)

    def note_token(self, request: Request, now: float) -> None:
        """A request gets its next token."""
        if request.last_at is None:
            self.first_token.note(now - request.submitted_at)
        else:
            self.between_tokens.note(now - request.last_at)
        request.last_at = now
