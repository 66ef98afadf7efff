"""SentencePiece's BPE: merge the pair of neighbours that makes the piece with the best score, leftmost first.

The `tokenizers` library's BPE ranks *pairs*, SentencePiece ranks the *pieces* they make. The two differ where one piece
can be made of two overlapping pairs (in `an|a|na` the piece `ana`), so this is an encoder of its own. Source of the
algorithm: SentencePiece `src/bpe_model.cc`; llama.cpp's `llm_tokenizer_spm_session` does the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from edgert_models.errors import UnsupportedError

from edgert_quant.vocabulary.pieces import SPACE, byte_of_token
from edgert_quant.vocabulary.table import TokenType, Vocabulary

_PLACE_BITS = 40  # heap entries are one integer: rank of the piece, then place of its left part


class SentencePieceBpe:
    """Cuts plain text (no special tokens, spaces as U+2581) into pieces. Thread-safe.

    Only normal and user-defined tokens are made from text; characters that no token covers become byte tokens, or the
    unknown token where there are none.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids: dict[str, int] = {}
        for index in reversed(vocabulary.of_type(TokenType.NORMAL, TokenType.USER_DEFINED)):
            self._ids[vocabulary.tokens[index]] = index
        # Equal scores must stay equal ranks: among them the leftmost merges first.
        order = np.unique(vocabulary.scores, return_inverse=True)
        ranks = len(order[0]) - 1 - order[1]
        self._ranks = {text: int(ranks[index]) for text, index in self._ids.items() if len(text) > 1}
        self._neighbours = {text[at : at + 2] for text in self._ranks for at in range(len(text) - 1)}
        self._bytes: dict[int, int] = {}
        for index in vocabulary.of_type(TokenType.BYTE):
            byte = byte_of_token(vocabulary.tokens[index])
            if byte is not None:
                self._bytes[byte] = index
        self._unknown = vocabulary.unk_id
        if self._unknown is None and len(self._bytes) < 256:
            raise UnsupportedError("this SentencePiece vocabulary has neither all 256 byte tokens nor an unknown token")
        self._short = lru_cache(maxsize=1 << 16)(self._cut)

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`."""
        ids: list[int] = []
        for word in self._words(text.replace(" ", SPACE)):
            ids += self._short(word) if len(word) <= 32 else self._cut(word)
        return ids

    def _words(self, text: str) -> Iterator[str]:
        """Parts of `text` that no piece can span: it is cut between neighbours that no piece has side by side."""
        neighbours, start = self._neighbours, 0
        for at in range(1, len(text)):
            if text[at - 1 : at + 1] not in neighbours:
                yield text[start:at]
                start = at
        if start < len(text):
            yield text[start:]

    def _cut(self, word: str) -> tuple[int, ...]:
        ids: list[int] = []
        for piece in self._merge(word):
            index = self._ids.get(piece)
            if index is not None:
                ids.append(index)
            else:  # one character: only pieces are ever made of several
                ids += self._fall_back(piece)
        return tuple(ids)

    def _fall_back(self, character: str) -> list[int]:
        found = [self._bytes.get(byte, -1) for byte in character.encode("utf-8")]
        if min(found) < 0:
            assert self._unknown is not None  # held by the constructor
            return [self._unknown]
        return found

    def _merge(self, word: str) -> list[str]:
        """`word` as pieces. Merged parts stay as empty strings in `parts`; `after` and `before` link the living."""
        parts = list(word)
        count = len(parts)
        after = list(range(1, count + 1))
        before = list(range(-1, count - 1))
        rank_of = self._ranks.get
        mask = (1 << _PLACE_BITS) - 1
        heap: list[int] = []
        for place in range(count - 1):
            rank = rank_of(parts[place] + parts[place + 1])
            if rank is not None:
                heap.append(rank << _PLACE_BITS | place)
        heapq.heapify(heap)
        while heap:
            entry = heapq.heappop(heap)
            left = entry & mask
            right = after[left]
            if not parts[left] or right >= count:
                continue
            merged = parts[left] + parts[right]
            if rank_of(merged) != entry >> _PLACE_BITS:  # one of the two has changed since
                continue
            parts[left], parts[right] = merged, ""
            following = after[left] = after[right]
            if following < count:
                before[following] = left
                rank = rank_of(merged + parts[following])
                if rank is not None:
                    heapq.heappush(heap, rank << _PLACE_BITS | left)
            previous = before[left]
            if previous >= 0:
                rank = rank_of(parts[previous] + merged)
                if rank is not None:
                    heapq.heappush(heap, rank << _PLACE_BITS | previous)
        return [part for part in parts if part]
