"""Where in a stream of tokens a text appears: what DRY needs of its sequence breakers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property, lru_cache

from edgert_models.errors import RequestError

from edgert.text.tokenizer import Tokenizer

_LONGEST_TAIL = 20  # tokens


class Breakers:
    """Finds the tokens that texts are part of, as llama.cpp does; the last few texts are remembered.

    SentencePiece may begin the rest of a text with a space that is not there: then a text that is cut in two may be
    missed, but none that is within one token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._remembered = lru_cache(maxsize=64)(self._sequences)

    def find(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Sequences of tokens: one token that contains a text, or one that ends with its beginning and then the tokens
        of the rest. RequestError for a text that is not Unicode.
        """
        return [sequence for text in texts for sequence in self._remembered(text)]

    def _sequences(self, text: str) -> list[tuple[int, ...]]:
        try:
            whole = text.encode()
        except UnicodeEncodeError:
            reason = f"dry_sequence_breakers: {text!r} has a lone surrogate"
            raise RequestError(reason, parameter="dry_sequence_breakers") from None
        containing = [index for index, piece in enumerate(self._pieces) if whole in piece]
        found: list[tuple[int, ...]] = [(index,) for index in containing]
        within = set(containing)
        for cut in range(1, len(text)):
            begin = text[:cut].encode()
            heads = [i for i in self._by_last_byte[begin[-1]] if i not in within and self._pieces[i].endswith(begin)]
            if heads:
                tail = self._tokenizer.encode(text[cut:], add_special=False, parse_special=False)[:_LONGEST_TAIL]
                found += [(index, *tail) for index in heads]
        return found

    @cached_property
    def _pieces(self) -> list[bytes]:
        return [self._tokenizer.token_bytes(index) for index in range(self._tokenizer.vocab_size)]

    @cached_property
    def _by_last_byte(self) -> dict[int, list[int]]:
        found = defaultdict(list)
        for index, piece in enumerate(self._pieces):
            if piece:
                found[piece[-1]].append(index)
        return found
