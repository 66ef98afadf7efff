"""RWKV's "World" tokenizer: the longest token that text goes on with, over and over.

Source: llama.cpp, `src/llama-vocab.cpp` (`llm_tokenizer_rwkv`). Tokens are bytes, written as inside a literal of
Python's: `\\n`, `\\xe4`.
"""

from __future__ import annotations

import re

from edgert_models.errors import UnsupportedError

from edgert_quant.vocabulary.table import TokenType, Vocabulary

_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_LETTERS = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


def rwkv_bytes(token: str) -> bytes:
    """The bytes that a token is written for; a backslash before any other letter stands for that letter."""

    def meant(found: re.Match[bytes]) -> bytes:
        letter = found[1]
        return bytes([int(letter[1:], 16)]) if len(letter) > 1 else _LETTERS.get(letter, letter)

    return _ESCAPE.sub(meant, token.encode("utf-8", "replace"))


class LongestMatch:
    """Cuts plain text. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        ordinary = vocabulary.of_type(TokenType.NORMAL, TokenType.USER_DEFINED)
        self._ids = {rwkv_bytes(vocabulary.tokens[index]): index for index in reversed(ordinary)}
        self._unknown = vocabulary.unk_id
        if self._unknown is None and any(bytes([byte]) not in self._ids for byte in range(256)):
            raise UnsupportedError("this RWKV vocabulary has neither all 256 bytes nor an unknown token")
        lengths: dict[bytes, set[int]] = {}
        for token in self._ids:
            lengths.setdefault(token[:2], set()).add(len(token))
        self._lengths = {begin: sorted(found, reverse=True) for begin, found in lengths.items()}

    def cut(self, text: str, first: bool) -> list[int]:
        """The token ids of `text`."""
        data, at, ids = text.encode(), 0, []
        while at < len(data):
            longer = self._lengths.get(data[at : at + 2], ())
            size = next((size for size in longer if data[at : at + size] in self._ids), 1)
            index = self._ids.get(data[at : at + size], self._unknown)
            assert index is not None  # held by the constructor
            ids.append(index)
            at += size
        return ids
