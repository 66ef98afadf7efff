"""Tokenizers for texts with DNA in them: between `<dna>` and `</dna>` six bases are a token, the rest is BPE's.

Source: llama.cpp, `src/llama-vocab.cpp` (`llm_tokenizer_hybriddna_session`). Tokens of bases have U+E000 after them, so
that none is called as a token of BPE's.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from edgert_models.errors import UnsupportedError

from edgert_quant.vocabulary.table import BASES_MARK, Vocabulary

_BASES = 6
_OPEN, _CLOSE, _OTHER = "<dna>", "</dna>", "<oov>"
_SECTION = re.compile(f"({_OPEN})(.*?)({_CLOSE}|\\Z)", re.DOTALL)


class DnaAndText:
    """Cuts text, of which `cut` takes what is no DNA. Thread-safe where `cut` is."""

    def __init__(self, vocabulary: Vocabulary, cut: Callable[[str], list[int]]) -> None:
        self._cut = cut
        self._ids = vocabulary.ids
        if not self._ids.keys() >= {_OPEN, _CLOSE, _OTHER}:
            raise UnsupportedError(f"this vocabulary of DNA and text lacks one of {_OPEN}, {_CLOSE}, {_OTHER}")

    def cut(self, text: str, first: bool) -> list[int]:
        """The token ids of `text`."""
        ids: list[int] = []
        at = 0
        for found in _SECTION.finditer(text):
            ids += self._cut(text[at : found.start()]) if found.start() > at else []
            ids += [self._ids[_OPEN], *self._bases(found[2])]
            ids += [self._ids[_CLOSE]] if found[3] else []
            at = found.end()
        return ids + (self._cut(text[at:]) if at < len(text) else [])

    def _bases(self, text: str) -> list[int]:
        """Six at a time, the last filled up with A; others than A, C, G and T make the token for others."""
        data = text.encode().upper().decode("latin-1")  # counted by bytes
        groups = (data[at : at + _BASES].ljust(_BASES, "A") + BASES_MARK for at in range(0, len(data), _BASES))
        return [self._ids.get(group, self._ids[_OTHER]) for group in groups]
