"""What guesses tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgert.engine.request import Request


class Proposer(Protocol):
    """Guesses what comes next in requests that are decoding. Used by the engine's thread alone."""

    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int]]:
        """For each request up to `most` (which may be 0) tokens that may follow its own."""

    def forget(self, request: Request) -> None:
        """The request has ended; it may never have been proposed for."""

    def close(self) -> None:
        """Give everything back."""
