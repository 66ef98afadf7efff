"""Special tokens written out in text: found first, so that only what is between them is cut by the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from edgert_quant.vocabulary.table import TokenType, Vocabulary

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, which is what `tokenizers` drops beside tokens."""


class SpecialEncoder:
    """An encoder that finds special tokens, and has `cut(text, first)` do the rest.

    `first` tells that nothing comes before the text. White space beside a token is dropped where the vocabulary says so
    (`lstrip`, `rstrip`).
    """

    def __init__(self, vocabulary: Vocabulary, cut: Callable[[str, bool], list[int]]) -> None:
        self._vocabulary, self._cut = vocabulary, cut
        always = vocabulary.of_type(TokenType.USER_DEFINED)
        parsed = vocabulary.of_type(TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.UNKNOWN)
        self._ids = {vocabulary.tokens[index]: index for index in parsed}
        self._patterns = {False: self._pattern(always), True: self._pattern(parsed)}

    def _pattern(self, ids: list[int]) -> re.Pattern[str] | None:
        """Finds the longest of the tokens that begin first."""
        names = sorted((self._vocabulary.tokens[index] for index in ids), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names))) if names else None

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        """See `Encoder.encode`."""
        ids: list[int] = []
        for part in self._parts(text, self._patterns[parse_special]):
            if isinstance(part, int):
                ids.append(part)
            elif part:
                ids += self._cut(part, not ids)
        return ids

    def _parts(self, text: str, pattern: re.Pattern[str] | None) -> Iterator[str | int]:
        """Text and token ids in turns."""
        at, dropped = 0, ""
        for match in pattern.finditer(text) if pattern else ():
            index = self._ids[match[0]]
            before = text[at : match.start()].lstrip(dropped) if dropped else text[at : match.start()]
            yield before.rstrip(WHITE_SPACE) if index in self._vocabulary.lstrip else before
            yield index
            at, dropped = match.end(), WHITE_SPACE if index in self._vocabulary.rstrip else ""
        yield text[at:].lstrip(dropped) if dropped else text[at:]
