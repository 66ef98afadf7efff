"""`tokenizer.model`: a SentencePiece model, read without the sentencepiece package.

It is a Protocol Buffers message; only the fields needed here are looked at. Source of the field numbers: SentencePiece
`src/sentencepiece_model.proto` (Apache-2.0).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgert_models.errors import FileFormatError, UnsupportedError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_UNIGRAM, _BPE = 1, 2


@dataclass
class SentencePieceModel:
    """Pieces, scores and types (numbered as GGUF numbers them), and the settings that GGUF has keys for."""

    pieces: list[str]
    scores: list[float]
    types: list[int]
    unigram: bool
    unk_id: int
    bos_id: int
    eos_id: int
    pad_id: int
    add_space_prefix: bool
    remove_extra_whitespaces: bool
    charsmap: bytes


def read_sentencepiece(path: Path, data: bytes) -> SentencePieceModel:
    """Read the bytes of the model at `path`.

    Raises `FileFormatError` for a damaged file, `UnsupportedError` for a word or character model.
    """
    model = SentencePieceModel([], [], [], True, 0, 1, 2, -1, True, True, b"")
    try:
        for number, value in _fields(data):
            if number == 1 and isinstance(value, bytes):
                _piece(model, value)
            elif number == 2 and isinstance(value, bytes):
                _trainer(model, value, path)
            elif number == 3 and isinstance(value, bytes):
                _normalizer(model, value)
    except (ValueError, IndexError, struct.error) as error:
        raise FileFormatError(path, f"is no SentencePiece model: {error}") from error
    if not model.pieces:
        raise FileFormatError(path, "is no SentencePiece model: it has no pieces")
    return model


def _piece(model: SentencePieceModel, data: bytes) -> None:
    text, score, kind = "", 0.0, 1
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif number == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            kind = value
    if kind not in range(1, 7):
        raise ValueError(f"piece {len(model.pieces)} has the unknown type {kind}")
    model.pieces.append(text)
    model.scores.append(score)
    model.types.append(kind)


def _trainer(model: SentencePieceModel, data: bytes, path: Path) -> None:
    for number, value in _fields(data):
        if not isinstance(value, int):
            continue
        signed = value - (1 << 64) if value >> 63 else value
        if number == 3:
            if value not in (_UNIGRAM, _BPE):
                raise UnsupportedError(f"{path}: SentencePiece models of words or characters are not supported")
            model.unigram = value == _UNIGRAM
        elif number == 24 and value:
            raise UnsupportedError(f"{path}: SentencePiece models with spaces as suffixes are not supported")
        elif number == 40:
            model.unk_id = signed
        elif number == 41:
            model.bos_id = signed
        elif number == 42:
            model.eos_id = signed
        elif number == 43:
            model.pad_id = signed


def _normalizer(model: SentencePieceModel, data: bytes) -> None:
    for number, value in _fields(data):
        if number == 2 and isinstance(value, bytes):
            model.charsmap = value
        elif number == 3:
            model.add_space_prefix = bool(value)
        elif number == 4:
            model.remove_extra_whitespaces = bool(value)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number and value, an integer for varints, else bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            number, at = _varint(data, at)
            yield key >> 3, number
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if size > len(data) - at:
            raise ValueError(f"a field of {size} bytes at byte {at}, where {len(data) - at} are left")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
    raise ValueError(f"a number of more than ten bytes at byte {at}")
