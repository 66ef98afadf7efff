"""The bytes that each token stands for.

Byte-level BPE writes every byte as one printable letter (OpenAI's `bytes_to_unicode`, gpt-2 `src/encoder.py`, MIT);
SentencePiece writes a space as U+2581 and keeps 256 tokens `<0x00>` … `<0xFF>` for bytes that no piece covers.
"""

from __future__ import annotations

import re

from edgert_quant.vocabulary.rwkv import rwkv_bytes
from edgert_quant.vocabulary.table import BASES_MARK, BYTE_LEVEL, TokenType, Vocabulary

SPACE = "\u2581"
"""How SentencePiece writes a space."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_letters() -> dict[str, int]:
    """Letter → byte. Printable bytes stand for themselves; the others follow from U+0100 on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


BYTE_OF_LETTER = _byte_letters()


def byte_of_token(text: str) -> int | None:
    """The byte that a token called `<0x41>` stands for; None for any other text."""
    match = _BYTE.fullmatch(text)
    return int(match[1], 16) if match else None


def token_bytes(vocabulary: Vocabulary) -> list[bytes]:
    """What each token adds to the text, as UTF-8 or parts of it.

    Control, unknown and user-defined tokens give their name, unused ones nothing. Whether control tokens are shown is
    for the caller to decide.
    """
    pieces = []
    ordinary = _ORDINARY.get(vocabulary.model, _spaced)
    for text, kind in zip(vocabulary.tokens, vocabulary.types.tolist(), strict=True):
        byte = byte_of_token(text) if kind == TokenType.BYTE else None
        if kind == TokenType.UNUSED:
            piece = b""
        elif byte is not None:
            piece = bytes([byte])
        elif kind != TokenType.NORMAL:
            piece = _plain(text)
        else:
            piece = ordinary(text)
        pieces.append(piece)
    return pieces


def _plain(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _spaced(text: str) -> bytes:
    return _plain(text.replace(SPACE, " "))


def _byte_level(text: str) -> bytes:
    try:
        return bytes([BYTE_OF_LETTER[letter] for letter in text])
    except KeyError:  # not made of byte letters: a piece that stands for itself
        return _plain(text.removesuffix(BASES_MARK))


_ORDINARY = {
    **dict.fromkeys(BYTE_LEVEL, _byte_level),
    "rwkv": rwkv_bytes,
    "plamo2": _plain,
    "whitespace": _plain,
}
