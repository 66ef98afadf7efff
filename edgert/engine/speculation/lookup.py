"""Guesses from the request's own tokens: what followed the last few the last time they came.

This is "prompt lookup decoding" (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding), over the answer too: good
where a text is quoted, edited or continued in a pattern, as code, tables and JSON are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgert.engine.request import Request

_LONGEST = 4  # tokens that are compared; two have to be the same
_LOOKED_AT = 16  # places where the last two came before


class Lookup:
    """See Proposer. Of the places where the last two tokens came before, the latest counts of those where the most
    tokens are the same, up to four.
    """

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
    """One request's tokens, in an array that can be searched in some microseconds."""

    def __init__(self) -> None:
        self._tokens = np.empty(256, dtype=np.int32)
        self._size = 0

    def following(self, tokens: Sequence[int], count: int) -> list[int]:
        """What came after the last of `tokens` when they came before, `count` at most."""
        size = len(tokens)
        if size > self._tokens.size:
            self._tokens = np.resize(self._tokens, 2 * size)
        self._tokens[self._size : size] = tokens[self._size :]
        self._size = size
        if size < 3:
            return []
        seen = self._tokens[:size]
        pairs = np.flatnonzero((seen[1:-1] == seen[-1]) & (seen[:-2] == seen[-2]))[-_LOOKED_AT:] + 2
        best, longest = 0, 0
        for end in pairs[::-1].tolist():  # the latest first
            length = self._agreeing(end)
            if length > longest:
                best, longest = end, length
        return list(tokens[best : best + count]) if longest else []

    def _agreeing(self, end: int) -> int:
        """How many tokens before `end` are the last ones of all, as far as it matters."""
        length = 2
        while length < min(_LONGEST, end) and self._tokens[end - 1 - length] == self._tokens[self._size - 1 - length]:
            length += 1
        return length
