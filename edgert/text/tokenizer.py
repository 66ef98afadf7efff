"""The tokenizer of a model: text to token ids and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from edgert_models.errors import RequestError
from edgert_quant.vocabulary import (
    BYTE_LEVEL,
    END_NAMES,
    WHITE_SPACE,
    Encoder,
    TokenType,
    Vocabulary,
    build_encoder,
    ggml_metadata,
    token_bytes,
)

# In these vocabularies <|end|> ends a part of the answer, not the answer.
_HARMONY = ({"<|return|>", "<|call|>"}, {"<|calls|>", "<|flush|>"})


class Tokenizer:
    """Text to token ids and back. Safe to use from several threads."""

    def __init__(self, vocabulary: Vocabulary, encoder: Encoder) -> None:
        self.vocabulary = vocabulary
        self._encoder = encoder
        self._hidden = frozenset(vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, object]) -> Tokenizer:
        """The tokenizer of a GGUF file, given its metadata.

        A whole `tokenizer.huggingface.json` is used where the file has one; else the tokenizer is rebuilt from the
        `tokenizer.ggml.*` keys. Raises `FileFormatError` for damaged keys, `UnsupportedError` for a kind of tokenizer
        that edgert does not know (both name what was found).
        """
        vocabulary = Vocabulary.from_metadata(metadata)
        return cls(vocabulary, build_encoder(metadata, vocabulary))

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer of a Hugging Face checkpoint: its tokenizer.json, else its tekken.json, tiktoken file or
        SentencePiece tokenizer.model.

        Raises `ConversionError` where the folder has neither, else as `from_gguf`.
        """
        return cls.from_gguf(ggml_metadata(folder, check_pre=False))

    @property
    def vocab_size(self) -> int:
        """Number of tokens; ids are below it."""
        return len(self.vocabulary)

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text."""
        return self.vocabulary.bos_id

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text."""
        return self.vocabulary.eos_id

    @property
    def bos_token(self) -> str:
        """The name of `bos_id`, as chat templates want it; empty where there is none."""
        return "" if self.bos_id is None else self.vocabulary.tokens[self.bos_id]

    @property
    def eos_token(self) -> str:
        """The name of `eos_id`, as chat templates want it; empty where there is none."""
        return "" if self.eos_id is None else self.vocabulary.tokens[self.eos_id]

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer: those the file names, and control tokens known by name to do so."""
        tokens = self.vocabulary.tokens
        special = self.vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED)
        found = {tokens[index]: index for index in special if tokens[index] in END_NAMES}
        ends = self.vocabulary.end_ids.union(found.values())
        return ends - {found.get("<|end|>")} if any(names <= found.keys() for names in _HARMONY) else ends

    @cached_property
    def pieces(self) -> list[bytes]:
        """The raw bytes that each token adds to a text, by id; for special tokens, their name."""
        return token_bytes(self.vocabulary)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """The token ids of `text`.

        `add_special`: with the begin and end tokens that the model's tokenizer adds. `parse_special`: control tokens
        written out in the text (`<|im_end|>`) become those tokens; without it they are text like any other.
        User-defined tokens belong to the ordinary vocabulary and are recognised either way. Raises `RequestError` for
        text that is no `str` or has a lone surrogate.
        """
        if not isinstance(text, str):
            raise RequestError(f"text must be a string, not {type(text).__name__}", parameter="text")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            reason = f"text has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}"
            raise RequestError(reason, parameter="text") from error
        ids = self._encoder.encode(text, parse_special=parse_special) if text else []
        if add_special:
            if self.vocabulary.add_bos and self.bos_id is not None:
                ids.insert(0, self.bos_id)
            if self.vocabulary.add_eos and self.eos_id is not None:
                ids.append(self.eos_id)
        return ids

    @cached_property
    def special(self) -> re.Pattern[str]:
        """Finds the control tokens that are written out in a text; the whole match is its one group."""
        names = sorted((self.vocabulary.tokens[index] for index in self._hidden), key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, names)) + ")" if names else "($.)")

    def encode_around(self, text: str, literal: Mapping[str, str]) -> list[int]:
        """The ids of `text` with its control tokens, where each character in `literal` stands for a text of its own.

        Those texts are text even where they spell a control token. Nothing is added.
        """
        ids: list[int] = []
        parts = self.special.split(text)
        for place, part in enumerate(parts):
            if place % 2:
                ids.append(self.vocabulary.ids[part])
                continue
            if place and self.vocabulary.ids[parts[place - 1]] in self.vocabulary.rstrip:
                part = part.lstrip(WHITE_SPACE)
            if place + 1 < len(parts) and self.vocabulary.ids[parts[place + 1]] in self.vocabulary.lstrip:
                part = part.rstrip(WHITE_SPACE)
            for character, meant in literal.items():
                part = part.replace(character, meant)
            ids += self.encode(part, add_special=False, parse_special=False)
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = False, continuation: bool = False) -> str:
        """The text of `ids`; bytes that form no character become U+FFFD.

        `skip_special` leaves control and unknown tokens out. SentencePiece puts a space before the first word: it is
        taken off again, unless the ids are the `continuation` of a text. Raises `RequestError` naming an id that is
        outside the vocabulary.
        """
        pieces = []
        leading = self.strips_leading_space and not continuation
        for place, index in enumerate(ids):
            self.check_id(index, f"ids[{place}]")
            if skip_special and index in self._hidden:
                continue
            piece = self.pieces[index]
            if leading and piece and index not in self._hidden:
                leading = False
                if self.may_carry_prefix(index):
                    piece = piece.removeprefix(b" ")
            pieces.append(piece)
        return b"".join(pieces).decode("utf-8", "replace")

    @property
    def strips_leading_space(self) -> bool:
        """Whether encoding puts a space before the first word, which decoding takes off."""
        return self.vocabulary.model not in BYTE_LEVEL and self.vocabulary.space_prefix != "never"

    def may_carry_prefix(self, index: int) -> bool:
        """Whether token `index`, first in a text, may begin with the space that encoding has put there."""
        return int(self.vocabulary.types[index]) in (TokenType.NORMAL, TokenType.BYTE)

    def token_bytes(self, index: int) -> bytes:
        """The raw bytes that token `index` adds to a text; for special tokens, their name."""
        self.check_id(index, "token id")
        return self.pieces[index]

    def token_id(self, text: str) -> int | None:
        """The id of the token that the vocabulary calls `text`, or None."""
        return self.vocabulary.ids.get(text)

    def is_control(self, index: int) -> bool:
        """Whether token `index` is a control (or unknown) token, one that `skip_special` leaves out."""
        self.check_id(index, "token id")
        return index in self._hidden

    def control_ids(self, texts: Iterable[str]) -> frozenset[int]:
        """The ids of the control tokens that `texts` are or have in them."""
        names = {index: self.vocabulary.tokens[index] for index in self._hidden}
        wanted = list(texts)
        return frozenset(index for index, name in names.items() if any(name in text for text in wanted))

    def check_id(self, index: int, name: str) -> None:
        """Raise `RequestError` where `index` is no token id; `name` says in the message which id it is."""
        if type(index) is int and 0 <= index < self.vocab_size:
            return
        try:
            valid = not isinstance(index, bool) and 0 <= index < self.vocab_size and index == int(index)
        except (TypeError, ValueError):
            valid = False
        if not valid:
            reason = f"{name} is {index!r:.40}; the vocabulary has ids from 0 to {self.vocab_size - 1}"
            raise RequestError(reason, parameter="ids")
