"""Text as it is generated: whole characters only, and nothing that a stop string may still claim."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from edgert_models.errors import RequestError

from edgert.text.search import first_hit, first_unfinished
from edgert.text.tokenizer import Tokenizer


class StreamDecoder:
    """Token ids in, text out, as soon as characters are whole. `skip_special` leaves control tokens out, but `shown`.

    What `push` and `flush` return, put together, is what `Tokenizer.decode` makes of the same ids and options.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special: bool = False,
        shown: frozenset[int] = frozenset(),
        continuation: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._shown = shown
        self._leading = tokenizer.strips_leading_space and not continuation
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, index: int) -> str:
        """The characters that token `index` completes; `RequestError` where it is outside the vocabulary."""
        hidden = self._tokenizer.is_control(index)
        if hidden and self._skip_special and index not in self._shown:
            return ""
        piece = self._tokenizer.token_bytes(index)
        if self._leading and piece and not hidden:
            self._leading = False
            if self._tokenizer.may_carry_prefix(index):
                piece = piece.removeprefix(b" ")
        return self._utf8.decode(piece)

    def flush(self) -> str:
        """U+FFFD for bytes that never became a character, else nothing. The decoder can go on with new ids."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest


class StopStrings:
    """Finds the first of several strings in text that comes in pieces.

    Text is passed on up to the hit, and held back only where it could still become one. `hit` is the stop string that
    was found, None until then.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        for place, stop in enumerate(stops):
            if not isinstance(stop, str) or not stop:
                raise RequestError(f"stop[{place}] must be a string that is not empty", parameter="stop")
        self._stops = tuple(stops)
        self._held = ""
        self.hit: str | None = None

    def push(self, text: str) -> tuple[str, str | None]:
        """The text that may be shown now, and `hit`.

        Of several hits the one that starts first counts, then the one that comes first in the list. After a hit nothing
        more is passed on.
        """
        if not self._stops:
            return text, None
        if self.hit is not None:
            return "", self.hit
        self._held += text
        end = first_unfinished(self._held, self._stops)
        found = first_hit(self._held, self._stops)
        if found is not None and found[0] <= end:
            end, self.hit = found
        shown, self._held = self._held[:end], self._held[end:]
        return shown, self.hit

    def flush(self) -> str:
        """The text still held back, now that no more comes; may set `hit`."""
        held, found = self._held, first_hit(self._held, self._stops)
        self._held = ""
        if self.hit is not None:
            return ""
        if found is not None:
            held, self.hit = held[: found[0]], found[1]
        return held
