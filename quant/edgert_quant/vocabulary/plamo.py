"""PLaMo-2's tokenizer: of all ways to cut a text into tokens, the one with the best sum of scores.

Source: llama.cpp, `src/llama-vocab.cpp` (`llm_tokenizer_plamo2`). Scores count in steps of 1e-4; a character as its
bytes costs 1000; of equal sums the longer first token wins. A byte order mark before the text is dropped.
"""

from __future__ import annotations

import math

from edgert_models.errors import UnsupportedError

from edgert_quant.vocabulary.pieces import byte_of_token
from edgert_quant.vocabulary.table import TokenType, Vocabulary

_STEPS = 10_000
_AS_BYTES = 1_000 * _STEPS
_WORST = 2 * _AS_BYTES  # tokens that cost as much are never used


class BestSum:
    """Cuts plain text. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokens: dict[str, tuple[int, int]] = {}
        self._bytes: dict[int, int] = {}
        for index in vocabulary.of_type(TokenType.BYTE):
            byte = byte_of_token(vocabulary.tokens[index])
            if byte is not None:
                self._bytes[byte] = index
        if len(self._bytes) < 256:
            raise UnsupportedError("this PLaMo-2 vocabulary has not all 256 byte tokens")
        for index in vocabulary.of_type(TokenType.NORMAL, TokenType.USER_DEFINED):
            score = float(vocabulary.scores[index]) * _STEPS
            cost = -int(math.copysign(math.floor(abs(score) + 0.5), score)) if math.isfinite(score) else _WORST
            if cost < _WORST:
                self._tokens[vocabulary.tokens[index]] = cost, index
        self._beginnings = {text[:size] for text in self._tokens for size in range(1, len(text) + 1)}

    def cut(self, text: str, first: bool) -> list[int]:
        """The token ids of `text`."""
        text = text.removeprefix("\ufeff")
        costs = [0] * (len(text) + 1)
        best: list[tuple[int, int | None]] = [(1, None)] * len(text)  # length and id of the token here; None: bytes
        for at in reversed(range(len(text))):
            costs[at] = costs[at + 1] + _AS_BYTES
            for size in range(1, len(text) - at + 1):
                piece = text[at : at + size]
                if piece not in self._beginnings:
                    break
                found = self._tokens.get(piece)
                if found is not None and costs[at + size] + found[0] <= costs[at]:
                    costs[at], best[at] = costs[at + size] + found[0], (size, found[1])
        ids, at = [], 0
        while at < len(text):
            size, index = best[at]
            ids += [index] if index is not None else [self._bytes[byte] for byte in text[at].encode()]
            at += size
        return ids
