"""Guesses from the request's own tokens: what followed the last few the last time they came.

This is "prompt lookup decoding" (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding), over the answer too: good
where a text is quoted, edited or continued in a pattern, as code, tables and JSON are.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgert.engine.request import Request

_LENGTHS = (4, 3, 2)  # of what has to come again; the longest that did counts


class Lookup:
    """See Proposer. Each token is looked at once, when it has come."""

    def __init__(self) -> None:
        self._seen: dict[Request, _Seen] = {}

    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int]]:
        """See Proposer."""
        return [
            self._seen.setdefault(request, _Seen()).following(request.history, count) if count else []
            for request, count in zip(requests, most, strict=True)
        ]

    def forget(self, request: Request) -> None:
        """See Proposer."""
        self._seen.pop(request, None)

    def close(self) -> None:
        """See Proposer."""
        self._seen.clear()


class _Seen:
    """Where in one request's tokens every short run of them ended last."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}
        self._until = 0  # runs that end before this are in `_ends`

    def following(self, tokens: Sequence[int], count: int) -> list[int]:
        """What came after the last of `tokens` when they came before, `count` at most."""
        ends, size = self._ends, len(tokens)
        for end in range(max(self._until, 1), size):  # not the last run: it would find itself
            for length in _LENGTHS:
                if length <= end:
                    ends[tuple(tokens[end - length : end])] = end
        self._until = max(size, self._until)
        for length in _LENGTHS:
            before = ends.get(tuple(tokens[size - length :])) if length <= size else None
            if before is not None:
                return list(tokens[before : before + count])
        return []
