"""Texts beyond which DRY looks for no repeat, and where they are in a stream of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Breakers:
    """`texts` in UTF-8, the bytes of every token (`pieces`), and the tokens that have one of the texts within them.

    llama.cpp looks for sequences of tokens that could make up a text; here it is the bytes that are looked at, so that
    a text is found however it is cut.
    """

    texts: tuple[bytes, ...]
    pieces: Sequence[bytes]
    containing: frozenset[int]

    @classmethod
    def find(cls, texts: Sequence[str], pieces: Sequence[bytes]) -> Breakers:
        """Looks at all `pieces`, which takes some milliseconds."""
        wanted = tuple(text.encode("utf-8", "surrogatepass") for text in texts)
        containing = {index for text in wanted for index, piece in enumerate(pieces) if text in piece}
        return cls(wanted, pieces, frozenset(containing))

    def end_at(self, tokens: Sequence[int], end: int) -> bool:
        """Whether the last of `tokens[:end]` completes one of the texts."""
        if tokens[end - 1] in self.containing:
            return True
        longest = max(map(len, self.texts), default=0)
        if longest < 2:
            return False
        # Each token that counts has at least a byte; those that have none are few.
        before = b"".join(self.pieces[token] for token in tokens[max(0, end - longest) : end - 1])
        joined = before + self.pieces[tokens[end - 1]]
        return any(joined.find(text, max(0, len(before) - len(text) + 1)) >= 0 for text in self.texts)
