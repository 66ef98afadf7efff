"""Tokenizer files as checkpoints have them, made of a vocabulary."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from edgert_quant.vocabulary import TokenType, Vocabulary
from edgert_quant.vocabulary.pretokenizers import PRE_TOKENIZERS


def added_tokens(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    special = vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": index, "content": vocabulary.tokens[index], "special": index in special} | flags
        for index in vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
    ]


def _document(vocabulary: Vocabulary, model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens(vocabulary)}
    empty = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    return document | empty | {"model": model} | parts


def byte_level_json(vocabulary: Vocabulary, **parts: Any) -> dict[str, Any]:
    """A byte-level tokenizer.json, its pre-tokenizer spelled by the table."""
    family = PRE_TOKENIZERS[vocabulary.pre]
    special = {token["content"] for token in added_tokens(vocabulary)}
    model = {
        "type": "BPE",
        "ignore_merges": family.ignore_merges,
        "byte_fallback": False,
        "vocab": {text: index for text, index in vocabulary.ids.items() if text not in special},
        "merges": [merge.split(" ") for merge in vocabulary.merges],
    }
    splits: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
        for expression in family.expressions
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    pre_tokenizer = {"type": "Sequence", "pretokenizers": [*splits, byte_level]}
    return _document(vocabulary, model, pre_tokenizer=pre_tokenizer, decoder=byte_level | {"use_regex": True}) | parts


def sentencepiece_merges(vocabulary: Vocabulary) -> list[list[str]]:
    """A list of merges such as transformers derives from scores: better pieces first, then longer left parts."""
    scores = {
        vocabulary.tokens[index]: float(vocabulary.scores[index]) for index in vocabulary.of_type(TokenType.NORMAL)
    }
    merges = [
        (score, len(text[:cut]), text[:cut], text[cut:])
        for text, score in scores.items()
        for cut in range(1, len(text))
        if text[:cut] in vocabulary.ids and text[cut:] in vocabulary.ids
    ]
    return [[left, right] for _, _, left, right in sorted(merges, key=lambda merge: merge[:2], reverse=True)]


def sentencepiece_json(vocabulary: Vocabulary, **parts: Any) -> dict[str, Any]:
    """A tokenizer.json of SentencePiece BPE, as transformers 4 writes it (a normalizer puts the space)."""
    model = {
        "type": "BPE",
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
        "vocab": dict(vocabulary.ids),
        "merges": sentencepiece_merges(vocabulary),
    }
    normalizers = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    return _document(vocabulary, model, normalizer={"type": "Sequence", "normalizers": normalizers}) | parts


METASPACE: dict[str, Any] = {
    "normalizer": None,
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
}
"""What transformers 5 has in place of the normalizer."""


def post_processor(*starts: str, ends: tuple[str, ...] = ()) -> dict[str, Any]:
    single: list[dict[str, Any]] = [{"SpecialToken": {"id": name, "type_id": 0}} for name in starts]
    single.append({"Sequence": {"id": "A", "type_id": 0}})
    single += [{"SpecialToken": {"id": name, "type_id": 0}} for name in ends]
    tokens = {name: {"id": name, "ids": [1], "tokens": [name]} for name in (*starts, *ends)}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": tokens}


def write(folder: Path, **files: Any) -> Path:
    """Write files; a name's `__` stands for the dot."""
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | float) -> bytes:
    """A field of a Protocol Buffers message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value % (1 << 64))
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def sentencepiece_model(vocabulary: Vocabulary, *, model_type: int = 2, normalizer: bytes = field(4, 0)) -> bytes:
    """The bytes of a tokenizer.model."""
    out = b""
    for text, score, kind in zip(vocabulary.tokens, vocabulary.scores.tolist(), vocabulary.types.tolist(), strict=True):
        out += field(1, field(1, text.encode()) + field(2, float(score)) + field(3, int(kind)))
    trainer = field(3, model_type) + field(4, 999) + field(40, 0) + field(41, 1) + field(42, 2) + field(43, -1)
    return out + field(2, trainer) + field(3, normalizer)
