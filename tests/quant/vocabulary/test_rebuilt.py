"""Kinds of tokenizers that are rebuilt, on vocabularies small enough to see through."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from edgert_models.errors import UnsupportedError
from edgert_quant.gguf import rewrite_metadata
from edgert_quant.vocabulary import AWKWARD_TEXTS, Vocabulary, rebuild_encoder, token_bytes
from edgert_quant.vocabulary.pretokenizers import PRE_TOKENIZERS, SPACED_BPE

from edgert.text import Tokenizer
from tests.quant.vocabulary import vectors
from tests.quant.vocabulary.tiny import bpe_metadata
from tests.support import llama_cpp


def pieces(metadata: dict[str, Any], text: str, *, parse_special: bool = False) -> list[str]:
    vocabulary = Vocabulary.from_metadata(metadata)
    ids = rebuild_encoder(vocabulary).encode(text, parse_special=parse_special)
    return [vocabulary.tokens[index] for index in ids]


def wordpiece_metadata(**changes: Any) -> dict[str, Any]:
    """BERT's: the names in brackets, beginnings of words, and what continues them."""
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "▁play",
        "▁the",
        "▁cafe",
        "▁,",
        "▁字",
        "ing",
        "ed",
        "e",
        "▁p",
        "▁Cafe",
    ]
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 2, 3, 3] + [1] * (len(tokens) - 4),
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        **changes,
    }


def test_wordpiece() -> None:
    assert pieces(wordpiece_metadata(), "The  playing, played Café字") == [
        *("▁the", "▁play", "ing", "▁,", "▁play", "ed", "▁cafe", "▁字"),
    ]
    assert pieces(wordpiece_metadata(), "plays") == ["[UNK]"]
    assert pieces(wordpiece_metadata(), "[CLS]") == ["[UNK]"] * 3
    assert pieces(wordpiece_metadata(), "[CLS]", parse_special=True) == ["[CLS]"]
    exact = wordpiece_metadata(**{"tokenizer.ggml.normalizer.lowercase": False})
    assert pieces(exact, "Cafe The") == ["▁Cafe", "[UNK]"]
    tokenizer = Tokenizer.from_gguf(wordpiece_metadata())
    assert tokenizer.encode("playing") == [2, 4, 9, 3]
    assert tokenizer.decode([2, 4, 9, 5, 3], skip_special=True) == "playing the"
    with pytest.raises(UnsupportedError, match="a WordPiece vocabulary without an unknown token"):
        rebuild_encoder(Vocabulary.from_metadata(wordpiece_metadata(**{"tokenizer.ggml.unknown_token_id": 2**32 - 1})))


def spaced_metadata(**changes: Any) -> dict[str, Any]:
    """Gemma 4's: plain text, spaces as U+2581, merges, and bytes for the rest."""
    merges = ["▁ t", "h e", "▁t he", "\n \n"]
    letters = ["<unk>", "<bos>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "t", "h", "e", "\n"]
    tokens = [*letters, *(merge.replace(" ", "") for merge in merges)]
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3] + [6] * 256 + [1] * (len(tokens) - 258),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.unknown_token_id": 0,
        **changes,
    }


@pytest.mark.parametrize(
    "change", [{}, *({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name} for name in sorted(SPACED_BPE))]
)
def test_bpe_over_plain_text(change: dict[str, str]) -> None:
    metadata = spaced_metadata(**change)
    assert pieces(metadata, "the the\n\nthe\té") == [
        *("t", "he", "▁the", "\n\n", "t", "he", "<0x09>", "<0xC3>", "<0xA9>"),
    ]
    vocabulary = Vocabulary.from_metadata(metadata)
    ids = rebuild_encoder(vocabulary).encode(" the é<bos>", parse_special=False)
    assert b"".join(token_bytes(vocabulary)[index] for index in ids).decode() == " the é<bos>"
    assert Tokenizer.from_gguf(metadata).decode(ids) == " the é<bos>"


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("afmoe", "a1234567 12", ["a", "1", "234", "567", "Ġ", "12"]),
        ("superbpe", "1234567", ["1", "234", "567"]),
        ("deepseek-v3", "1234567", ["123", "456", "7"]),
        ("qwen2", "123", ["1", "2", "3"]),
    ],
)
def test_digits_are_grouped_as_the_name_says(pre: str, text: str, words: list[str]) -> None:
    merges = ["1 2", "12 3", "2 3", "23 4", "4 5", "45 6", "5 6", "56 7"]
    assert pieces(bpe_metadata(merges, pre=pre), text) == words


def test_longest_match() -> None:
    tokens = ["<s>", *(repr(bytes([byte]))[2:-1] for byte in range(256)), "th", "the", r"\n\n", r"\xe5\xad", r"a\'\\"]
    metadata = {
        "tokenizer.ggml.model": "rwkv",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1),
    }
    assert pieces(metadata, "then\n\n\nthé") == ["the", "n", r"\n\n", r"\n", "th", r"\xc3", r"\xa9"]
    assert pieces(metadata, "字a'\\<s>") == [r"\xe5\xad", r"\x97", r"a\'\\", "<", "s", ">"]
    assert pieces(metadata, "<s>the", parse_special=True) == ["<s>", "the"]
    tokenizer = Tokenizer.from_gguf(metadata)
    assert tokenizer.decode(tokenizer.encode(" the 字a'\\\t\0")) == " the 字a'\\\t\0"
    del tokens[1:3], metadata["tokenizer.ggml.token_type"]
    with pytest.raises(UnsupportedError, match="neither all 256 bytes nor an unknown token"):
        Tokenizer.from_gguf(metadata)


def plamo_metadata(scores: dict[str, float]) -> dict[str, Any]:
    fixed = ["<|plamo:unk|>", "<|plamo:bos|>", "<|plamo:eos|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return {
        "tokenizer.ggml.model": "plamo2",
        "tokenizer.ggml.tokens": [*fixed, *scores],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(scores),
        "tokenizer.ggml.scores": [0.0] * 259 + list(scores.values()),
    }


def test_best_sum_of_scores() -> None:
    metadata = plamo_metadata({"a": -2.0, "b": -2.0, "ab": -3.0, "ba": -1.0, "bab": -6.0, "never": -2000.0})
    assert pieces(metadata, "\ufeffabab") == ["a", "ba", "b"]  # -5; ab ab has -6, as has a bab: the first is longer
    assert pieces(plamo_metadata({"a": -2.0, "b": -1.0, "ab": -3.0}), "ab") == ["ab"]
    assert pieces(metadata, "aé") == ["a", "<0xC3>", "<0xA9>"]
    assert pieces(metadata, "never")[:2] == ["<0x6E>", "<0x65>"]
    assert pieces(metadata, "<|plamo:bos|>", parse_special=True) == ["<|plamo:bos|>"]
    assert "<|plamo:bos|>" not in pieces(metadata, "<|plamo:bos|>")
    tokenizer = Tokenizer.from_gguf(metadata)
    assert tokenizer.decode(tokenizer.encode(" ab▁é")) == " ab▁é"
    del metadata["tokenizer.ggml.token_type"]
    with pytest.raises(UnsupportedError, match="has not all 256 byte tokens"):
        Tokenizer.from_gguf(metadata)


@pytest.mark.parametrize("model", ["whitespace", "gpt2"])
def test_words(model: str) -> None:
    metadata = {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.pre": "whitespace",
        "tokenizer.ggml.tokens": ["a", "b", "字", "ab", "ab字", "[CLS]"],
        "tokenizer.ggml.token_type": [1] * 5 + [3],
        "tokenizer.ggml.merges": ["a b", "ab 字"],
    }
    assert pieces(metadata, "ab \u3000ab字\nAb ?axb") == ["ab", "ab字", "b", "a", "b"]
    assert pieces(metadata, "[CLS]a", parse_special=True) == ["[CLS]", "a"]
    assert pieces(metadata | {"tokenizer.ggml.normalizer.lowercase": True}, "AB") == ["ab"]


def test_dna_and_text() -> None:
    metadata = bpe_metadata(["A C", "AC G"])
    metadata["tokenizer.ggml.tokens"] += ["<dna>", "</dna>", "<oov>", "ACGTAC\ue000", "ACAAAA\ue000"]
    metadata["tokenizer.ggml.token_type"] += [1] * 5
    metadata["tokenizer.ggml.model"] = "hybriddna"
    expected = ["ACG", "<dna>", "ACGTAC\ue000", "ACAAAA\ue000", "</dna>", "A", "<dna>", "<oov>"]
    assert pieces(metadata, "ACG<dna>acgtACac</dna>A<dna>NNN") == expected
    tokenizer = Tokenizer.from_gguf(metadata)
    assert tokenizer.decode(tokenizer.encode("ACG<dna>acgtacac</dna>A")) == "ACG<dna>ACGTACACAAAA</dna>A"
    metadata["tokenizer.ggml.tokens"][-3] = "other"
    with pytest.raises(UnsupportedError, match="lacks one of <dna>, </dna>, <oov>"):
        Tokenizer.from_gguf(metadata)


def test_an_unknown_name_is_refused_with_the_way_out() -> None:
    message = "the pre-tokenizer 'of-old' is unknown .*; convert the model again from its checkpoint"
    with pytest.raises(UnsupportedError, match=message):
        rebuild_encoder(Vocabulary.from_metadata(bpe_metadata(pre="of-old")))


# llama.cpp does not compose characters, and takes some letters for those of another case; the models' own do as we.
COMPOSED = {name for name, entry in PRE_TOKENIZERS.items() if entry.nfc}
CASED = {"tiny_aya", "cohere2moe", "youtu", "kimi-k2"}


@pytest.mark.slow
def test_llama_cpp_cuts_the_same_by_every_name(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    shutil.copyfile(vectors.path_of("gpt-2"), path)
    for name in PRE_TOKENIZERS:
        rewrite_metadata(path, {"tokenizer.ggml.pre": name})
        encoder = rebuild_encoder(Vocabulary.from_metadata(vectors.metadata("gpt-2") | {"tokenizer.ggml.pre": name}))
        cut = llama_cpp.cutter(path)
        if cut is None:
            assert name == "o200k", name  # a name of other writers'
            continue
        for text in AWKWARD_TEXTS:
            if (name in COMPOSED and text.startswith("cafe\u0301")) or (name in CASED and "camelCase" in text):
                continue
            assert encoder.encode(text, parse_special=False) == cut(text), (name, text)
