"""Vocabularies of ranked byte strings: tiktoken's files and tekken.json."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from edgert_models.errors import FileFormatError, UnsupportedError
from edgert_quant.vocabulary import TokenType, Vocabulary, ggml_metadata, has_tokenizer, rebuild_encoder, token_bytes
from edgert_quant.vocabulary.pretokenizers import PRE_TOKENIZERS

from tests.quant.vocabulary import vectors
from tests.quant.vocabulary.checkpoints import write
from tests.quant.vocabulary.tiny import bpe_metadata

KIMI = {
    "tokenizer_class": "TikTokenTokenizer",
    "bos_token": "[BOS]",
    "eos_token": "[EOS]",
    "added_tokens_decoder": {
        "261": {"content": "[BOS]", "special": True},
        "262": {"content": "[EOS]", "special": True},
        "263": {"content": "<think>", "special": False},
    },
}


def ranks(metadata: dict[str, Any]) -> list[bytes]:
    """The tokens of a byte-level vocabulary, in the order of their ranks."""
    vocabulary = Vocabulary.from_metadata(metadata)
    pieces = token_bytes(vocabulary)
    return [pieces[index] for index in vocabulary.of_type(TokenType.NORMAL)]


def tiktoken(tokens: list[bytes]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def tekken(tokens: list[bytes], **changes: Any) -> dict[str, Any]:
    config = {
        "pattern": PRE_TOKENIZERS["tekken"].expressions[0],
        "default_vocab_size": len(tokens) + 25,
        "default_num_special_tokens": 25,
    }
    beyond = [*tokens, b"beyond"]
    vocab = [{"rank": rank, "token_bytes": base64.b64encode(token).decode()} for rank, token in enumerate(beyond)]
    return {"config": config, "vocab": vocab, **changes}


def test_tiktoken(tmp_path: Path) -> None:
    write(tmp_path, tiktoken__model=tiktoken(ranks(bpe_metadata())), tokenizer_config__json=KIMI)
    assert has_tokenizer(tmp_path)
    metadata = ggml_metadata(tmp_path, vocab_size=266)
    assert metadata["tokenizer.ggml.pre"] == "kimi-k2"
    assert sorted(metadata["tokenizer.ggml.merges"]) == sorted(bpe_metadata()["tokenizer.ggml.merges"])
    vocabulary = Vocabulary.from_metadata(metadata)
    assert vocabulary.tokens[261:] == ["[BOS]", "[EOS]", "<think>", "[PAD264]", "[PAD265]"]
    assert vocabulary.types[261:].tolist() == [3, 3, 4, 5, 5]
    assert (vocabulary.bos_id, vocabulary.eos_id) == (261, 262)
    ids = rebuild_encoder(vocabulary).encode(" the[EOS] in", parse_special=True)
    assert [vocabulary.tokens[index] for index in ids] == ["Ġthe", "[EOS]", "Ġ", "in"]


def test_a_tokenizer_model_may_be_a_tiktoken_file(tmp_path: Path) -> None:
    write(tmp_path, tokenizer__model=tiktoken(ranks(bpe_metadata())), config__json={"model_type": "llama"})
    assert ggml_metadata(tmp_path)["tokenizer.ggml.pre"] == "llama-bpe"
    write(tmp_path, config__json={"model_type": "other"})
    with pytest.raises(
        UnsupportedError, match=r"tokenizer\.model: the pre-tokenizer is none .* Found: nothing: the file"
    ):
        ggml_metadata(tmp_path)
    assert ggml_metadata(tmp_path, pre="qwen2")["tokenizer.ggml.pre"] == "qwen2"


def test_tekken(tmp_path: Path) -> None:
    write(tmp_path, tekken__json=tekken(ranks(bpe_metadata())), config__json={"eos_token_id": 2})
    metadata = ggml_metadata(tmp_path)
    assert metadata["tokenizer.ggml.pre"] == "tekken"
    vocabulary = Vocabulary.from_metadata(metadata)
    assert len(vocabulary) == 25 + 261
    assert vocabulary.tokens[:4] == ["<unk>", "<s>", "</s>", "[INST]"]
    assert vocabulary.tokens[20] == "<SPECIAL_20>"
    assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.add_bos, vocabulary.add_eos) == (1, 2, True, False)
    ids = rebuild_encoder(vocabulary).encode("the[INST]", parse_special=True)
    assert [vocabulary.tokens[index] for index in ids] == ["the", "[INST]"]
    special = [
        {"rank": 0, "token_str": "<unk>", "is_control": True},
        {"rank": 1, "token_str": "t", "is_control": False},
    ]
    write(tmp_path, tekken__json=tekken(ranks(bpe_metadata()), special_tokens=special))
    assert Vocabulary.from_metadata(ggml_metadata(tmp_path)).types[:3].tolist() == [3, 4, 3]


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe"])
def test_merges_follow_from_ranks(name: str, tmp_path: Path) -> None:
    metadata = dict(vectors.metadata(name))
    tokens = ranks(metadata)
    write(tmp_path, tiktoken__model=tiktoken(tokens))
    made = ggml_metadata(tmp_path, pre=str(metadata["tokenizer.ggml.pre"]))
    # gpt-2's ids are the order of its merges; llama-bpe's file has every pair that could make a token.
    if name == "gpt-2":
        assert made["tokenizer.ggml.merges"] == metadata["tokenizer.ggml.merges"]
    encoder = rebuild_encoder(Vocabulary.from_metadata(made))
    for text, expected in vectors.pairs(name):
        assert encoder.encode(text, parse_special=False) == expected, text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tiktoken__model": b"IQ== 0\n??? 1\n"}, r"tiktoken\.model.* line 2 is no token in base64 and its rank"),
        ({"tiktoken__model": b"IQ== 0\nIg== x\n"}, r"tiktoken\.model.* line 2 is no token in base64 and its rank"),
        ({"tekken__json": {"vocab": []}}, r"tekken\.json.* is not shaped like a tekken\.json: KeyError: 'config'"),
        ({"tekken__json": tekken([b"a"], vocab=[{"rank": 0}])}, r"is not shaped like a tekken\.json: KeyError"),
        ({"tekken__json": tekken([b"a"], vocab=[{"rank": 0, "token_bytes": "?"}])}, "is not shaped like a tekken"),
        ({"tekken__json": "[]"}, "is not a JSON object"),
    ],
    ids=str,
)
def test_damaged_files(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, tokenizer_config__json=KIMI, **files)
    with pytest.raises(FileFormatError, match=message):
        ggml_metadata(tmp_path)
