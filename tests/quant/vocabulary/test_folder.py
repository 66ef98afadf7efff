from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import ConversionError, FileFormatError, UnsupportedError
from edgert_quant.gguf import GgufFile, GgufWriter
from edgert_quant.vocabulary import (
    Vocabulary,
    build_encoder,
    check_parity,
    ggml_metadata,
    has_tokenizer,
    rebuild_encoder,
    require_parity,
)
from edgert_quant.vocabulary.pretokenizers import PRE_TOKENIZERS, detect

from tests.quant.vocabulary import checkpoints, vectors
from tests.quant.vocabulary.checkpoints import (
    METASPACE,
    byte_level_json,
    field,
    post_processor,
    sentencepiece_json,
    sentencepiece_model,
    write,
)
from tests.quant.vocabulary.tiny import bpe_metadata, spm_metadata

SPM_PIECES = ["▁", "a", "b", "n", "▁a", "an", "na", "ana", "▁▁", "ba"]
SPM_SCORES = [-20, -21, -22, -23, -1, -2, -3, -4, -5, -6]


def bpe() -> Vocabulary:
    metadata = bpe_metadata(
        control=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], user_defined=["<think>"], pre="qwen2"
    )
    return Vocabulary.from_metadata(metadata)


def spm() -> Vocabulary:
    return Vocabulary.from_metadata(spm_metadata(SPM_PIECES, SPM_SCORES))


def test_byte_level(tmp_path: Path) -> None:
    vocabulary = bpe()
    nfc = {"normalizer": {"type": "NFC"}}
    config = {
        "eos_token": {"content": "<|im_end|>"},
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "add_bos_token": False,
    }
    generation = {"eos_token_id": [vocabulary.ids["<|im_end|>"], vocabulary.ids["<|endoftext|>"]]}
    write(tmp_path, tokenizer__json=byte_level_json(vocabulary, **nfc), tokenizer_config__json=config)
    write(tmp_path, generation_config__json=generation, config__json={"vocab_size": len(vocabulary) + 3})
    found = ggml_metadata(tmp_path)
    assert found["tokenizer.ggml.model"] == "gpt2"
    assert found["tokenizer.ggml.pre"] == "qwen2"
    pads = [f"[PAD{len(vocabulary) + place}]" for place in range(3)]
    assert found["tokenizer.ggml.tokens"] == [*vocabulary.tokens, *pads]
    assert found["tokenizer.ggml.token_type"].tolist() == [*vocabulary.types.tolist(), 5, 5, 5]
    assert found["tokenizer.ggml.token_type"].dtype == np.int32
    assert found["tokenizer.ggml.merges"] == vocabulary.merges
    assert "tokenizer.ggml.scores" not in found
    assert "tokenizer.ggml.bos_token_id" not in found
    assert found["tokenizer.ggml.eos_token_id"] == vocabulary.ids["<|im_end|>"]
    assert found["tokenizer.ggml.eot_token_id"] == vocabulary.ids["<|im_end|>"]
    assert found["tokenizer.ggml.padding_token_id"] == vocabulary.ids["<|endoftext|>"]
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["edgert.tokenizer.normalizer"] == "nfc"
    assert found["edgert.tokenizer.stop_token_ids"].tolist() == sorted(generation["eos_token_id"])
    assert found["tokenizer.huggingface.json"] == (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    require_parity(found)
    assert Vocabulary.from_metadata(found).end_ids == set(generation["eos_token_id"])


def test_metadata_survives_a_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        tokenizer__json=sentencepiece_json(spm()),
        tokenizer_config__json={"bos_token": "<s>", "eos_token": "</s>"},
    )
    found = ggml_metadata(tmp_path)
    with GgufWriter(tmp_path / "x.gguf") as writer:
        for key, value in found.items():
            writer.add_metadata(key, value)
        writer.begin()
    with GgufFile.open(tmp_path / "x.gguf") as file:
        read = dict(file.metadata)
        again, before = Vocabulary.from_metadata(file.metadata), Vocabulary.from_metadata(found)
    assert again.tokens == before.tokens
    assert again.scores.tolist() == before.scores.tolist()
    assert (again.bos_id, again.space_prefix) == (1, "always")
    first, second = build_encoder(read, again), build_encoder(found, before)
    assert check_parity(first, second) is None


@pytest.mark.parametrize("parts", [{}, METASPACE], ids=["prepend", "metaspace"])
def test_sentencepiece_json(tmp_path: Path, parts: dict[str, Any]) -> None:
    vocabulary = spm()
    document = sentencepiece_json(vocabulary, post_processor=post_processor("<s>"), **parts)
    write(tmp_path, tokenizer__json=document, tokenizer_config__json={"bos_token": "<s>", "eos_token": "</s>"})
    found = ggml_metadata(tmp_path)
    assert found["tokenizer.ggml.model"] == "llama"
    assert found["tokenizer.ggml.token_type"].tolist() == vocabulary.types.tolist()
    assert found["tokenizer.ggml.add_bos_token"] is True
    assert found["tokenizer.ggml.add_space_prefix"] is True
    assert (found["tokenizer.ggml.bos_token_id"], found["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert found["tokenizer.ggml.unknown_token_id"] == 0
    require_parity(found)
    # Better pieces have higher scores, in the order of the merges.
    scores = dict(zip(found["tokenizer.ggml.tokens"], found["tokenizer.ggml.scores"].tolist(), strict=True))
    assert scores["▁a"] > scores["an"] > scores["na"] > scores["ana"] > scores["▁▁"] > scores["ba"] > scores["a"]
    # The scores of tokenizer.model are taken where it is there.
    write(tmp_path, tokenizer__model=sentencepiece_model(vocabulary))
    assert ggml_metadata(tmp_path)["tokenizer.ggml.scores"].tolist() == vocabulary.scores.tolist()


def test_sentencepiece_model_alone(tmp_path: Path) -> None:
    vocabulary = spm()
    added = {"added_tokens_decoder": {str(len(vocabulary)): {"content": "<|im_end|>", "special": True}}}
    write(
        tmp_path,
        tokenizer__model=sentencepiece_model(vocabulary),
        tokenizer_config__json=added | {"add_eos_token": True},
    )
    write(tmp_path, added_tokens__json={"<more>": len(vocabulary) + 1})
    found = ggml_metadata(tmp_path)
    assert found["tokenizer.ggml.tokens"] == [*vocabulary.tokens, "<|im_end|>", "<more>"]
    assert found["tokenizer.ggml.token_type"].tolist()[-2:] == [3, 4]
    assert found["tokenizer.ggml.scores"].tolist()[:-2] == vocabulary.scores.tolist()
    assert (found["tokenizer.ggml.add_bos_token"], found["tokenizer.ggml.add_eos_token"]) == (True, True)
    assert "tokenizer.ggml.padding_token_id" not in found
    assert "tokenizer.huggingface.json" not in found
    encoder = rebuild_encoder(Vocabulary.from_metadata(found))
    assert encoder.encode("anana<|im_end|>", parse_special=True)[-1] == len(vocabulary)
    require_parity(found)  # nothing to compare with


def test_unigram(tmp_path: Path) -> None:
    pieces = [
        ["<pad>", 0.0],
        ["</s>", 0.0],
        ["<unk>", 0.0],
        ["▁", -2.0],
        ["▁a", -1.5],
        ["b", -2.5],
        ["ab", -1.0],
        ["a", -3.0],
    ]
    vocabulary = [
        {"id": index, "content": pieces[index][0], "special": True, "normalized": False} for index in range(3)
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    document = {
        "version": "1.0",
        "added_tokens": [token | flags for token in vocabulary],
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": False},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": post_processor(ends=("</s>",)),
    }
    write(tmp_path, tokenizer__json=document, tokenizer_config__json={"eos_token": "</s>", "unk_token": "<unk>"})
    found = ggml_metadata(tmp_path)
    assert found["tokenizer.ggml.model"] == "t5"
    assert found["tokenizer.ggml.token_type"].tolist() == [3, 3, 2, 1, 1, 1, 1, 1]
    assert (found["tokenizer.ggml.add_bos_token"], found["tokenizer.ggml.add_eos_token"]) == (False, True)
    require_parity(found)
    encoder = rebuild_encoder(Vocabulary.from_metadata(found))
    assert encoder.encode("ab</s>", parse_special=True) == [3, 6, 1]
    for one in (encoder, build_encoder(found, Vocabulary.from_metadata(found))):
        assert one.encode("ab</s><unk>", parse_special=False) == [3, 6, 2]  # what has no token is one unknown


def test_tokens_that_take_white_space(tmp_path: Path) -> None:
    document = sentencepiece_json(spm())
    for token in document["added_tokens"]:
        token |= {"lstrip": token["content"] == "<s>", "rstrip": token["content"] == "</s>"}
    write(tmp_path, tokenizer__json=document, tokenizer_config__json={"bos_token": "<s>", "eos_token": "</s>"})
    found = ggml_metadata(tmp_path)
    assert found["edgert.tokenizer.lstrip_token_ids"].tolist() == [1]
    assert found["edgert.tokenizer.rstrip_token_ids"].tolist() == [2]
    require_parity(found)


def test_begin_and_end_tokens(tmp_path: Path) -> None:
    vocabulary = bpe()

    def adds(config: dict[str, Any], *starts: str, ends: tuple[str, ...] = ()) -> tuple[bool, bool]:
        processor = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, post_processor(*starts, ends=ends)]}
        write(
            tmp_path,
            tokenizer__json=byte_level_json(vocabulary, post_processor=processor),
            tokenizer_config__json=config,
        )
        found = ggml_metadata(tmp_path)
        return found["tokenizer.ggml.add_bos_token"], found["tokenizer.ggml.add_eos_token"]

    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert adds(names) == (False, False)
    assert adds(names, "<|im_start|>") == (True, False)
    assert adds(names, ends=("<|im_end|>",)) == (False, True)
    assert adds({"eos_token": "<|im_end|>"}, "<|im_start|>") == (True, False)  # named by the post-processor alone
    assert adds(names | {"add_bos_token": True}) == (True, False)
    assert adds(names | {"add_bos_token": False}, "<|im_start|>") == (False, False)
    assert adds({"add_bos_token": True}) == (False, False)
    with pytest.raises(
        UnsupportedError, match=r"puts <\|im_start\|> <think> before every text; GGUF can only describe the bos"
    ):
        adds(names, "<|im_start|>", "<think>")
    with pytest.raises(UnsupportedError, match=r"puts <think> after every text"):
        adds(names, ends=("<think>",))


def test_chat_templates(tmp_path: Path) -> None:
    write(tmp_path, tokenizer__json=byte_level_json(bpe()))

    def templates() -> dict[str, Any]:
        return {key: value for key, value in ggml_metadata(tmp_path).items() if "chat_template" in key}

    assert templates() == {}
    write(tmp_path, tokenizer_config__json={"chat_template": "A"})
    assert templates() == {"tokenizer.chat_template": "A"}
    several = [{"name": "default", "template": "B"}, {"name": "tool_use", "template": "C"}]
    write(tmp_path, tokenizer_config__json={"chat_template": several})
    named = {"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template.tool_use": "C"}
    assert templates() == {"tokenizer.chat_template": "B"} | named
    write(tmp_path, chat_template__json={"chat_template": "D"})
    assert templates() == {"tokenizer.chat_template": "D"}
    write(tmp_path, chat_template__jinja="E")
    (tmp_path / "additional_chat_templates").mkdir()
    write(tmp_path / "additional_chat_templates", rag__jinja="F")
    named = {"tokenizer.chat_templates": ["rag"], "tokenizer.chat_template.rag": "F"}
    assert templates() == {"tokenizer.chat_template": "E"} | named


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    assert not has_tokenizer(tmp_path)
    with pytest.raises(ConversionError, match=r"has none of tokenizer\.json, tokenizer\.model, tekken"):
        ggml_metadata(tmp_path)
    vocabulary = bpe()
    write(tmp_path, tokenizer__json=byte_level_json(vocabulary))
    assert has_tokenizer(tmp_path)
    last = len(vocabulary) - 1
    with pytest.raises(ConversionError, match=rf"has token ids up to {last}, but the model has 5 embeddings"):
        ggml_metadata(tmp_path, vocab_size=5)
    assert len(ggml_metadata(tmp_path, vocab_size=300)["tokenizer.ggml.tokens"]) == 300
    write(tmp_path, tokenizer__json="{")
    with pytest.raises(FileFormatError, match=r"tokenizer\.json: is not JSON"):
        ggml_metadata(tmp_path)
    for document in ({}, {"model": []}, {"model": {"type": "BPE", "vocab": 3, "merges": []}}, {"added_tokens": [{}]}):
        write(tmp_path, tokenizer__json=byte_level_json(vocabulary) | document if document else {})
        with pytest.raises(FileFormatError, match="is not shaped like a tokenizer"):
            ggml_metadata(tmp_path)
    write(tmp_path, tokenizer__json={"model": {"type": "WordPiece", "vocab": {}}})
    with pytest.raises(UnsupportedError, match="a WordPiece tokenizer with no pre-tokenizer has no form in GGUF"):
        ggml_metadata(tmp_path)


def test_an_unknown_pre_tokenizer_is_refused_with_what_was_found(tmp_path: Path) -> None:
    document = byte_level_json(bpe())
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "odd+"
    write(tmp_path, tokenizer__json=document)
    with pytest.raises(
        UnsupportedError, match=r"none that GGUF has a name for\. Found: Split\(\{'Regex': 'odd\+'\}, Isolated\)"
    ):
        ggml_metadata(tmp_path)
    with pytest.raises(UnsupportedError, match="the pre-tokenizer 'mine' is unknown"):
        ggml_metadata(tmp_path, pre="mine")
    found = ggml_metadata(tmp_path, pre="qwen2")
    assert found["tokenizer.ggml.pre"] == "qwen2"
    with pytest.raises(
        ConversionError, match=r"the tokenizer and its GGUF form .* do not agree: '.*' gives different tokens"
    ):
        require_parity(found)
    unnamed = ggml_metadata(tmp_path, check_pre=False)
    assert "tokenizer.ggml.pre" not in unnamed
    build_encoder(unnamed, Vocabulary.from_metadata(unnamed)).encode("still works", parse_special=True)


def test_a_normalizer_that_gguf_cannot_name_fails_parity(tmp_path: Path) -> None:
    write(tmp_path, tokenizer__json=byte_level_json(bpe(), normalizer={"type": "Lowercase"}))
    with pytest.raises(ConversionError, match="do not agree: 'Hello, world!' gives different tokens from token 0 on"):
        require_parity(ggml_metadata(tmp_path))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", FileFormatError, "is no SentencePiece model: it has no pieces"),
        (b"\xff" * 20, FileFormatError, "is no SentencePiece model: a number of more than ten bytes"),
        (b"\x0a\x05ab", FileFormatError, "a field of 5 bytes at byte 2, where 2 are left"),
        (b"\x0b", FileFormatError, "wire type 3"),
        (field(1, field(1, b"\xff")), FileFormatError, "is no SentencePiece model: 'utf-8'"),
        (field(1, field(3, 9)), FileFormatError, "piece 0 has the unknown type 9"),
        (b"\x80", FileFormatError, "is no SentencePiece model: index out of range"),
        (sentencepiece_model(spm(), model_type=4), UnsupportedError, "models of words or characters are not supported"),
        (field(1, field(1, b"a")) + field(2, field(24, 1)), UnsupportedError, "with spaces as suffixes"),
        (sentencepiece_model(spm(), normalizer=field(2, b"x")), UnsupportedError, "normalizes text before its BPE"),
        (sentencepiece_model(spm(), normalizer=b""), UnsupportedError, "removes spaces before its BPE"),
    ],
)
def test_damaged_sentencepiece_models(tmp_path: Path, data: bytes, error: type[Exception], message: str) -> None:
    write(tmp_path, tokenizer__model=data)
    with pytest.raises(error, match=message):
        ggml_metadata(tmp_path)


# --- the table of pre-tokenizers ---


def test_every_entry_of_the_table_is_found_by_its_expressions() -> None:
    for name, entry in PRE_TOKENIZERS.items():
        found = detect(entry.expressions, ignore_merges=entry.ignore_merges, nfc=entry.nfc)
        assert found is not None
        assert PRE_TOKENIZERS[found].expressions == entry.expressions, name
        rebuild_encoder(Vocabulary.from_metadata(bpe_metadata(pre=name) | {"tokenizer.ggml.add_bos_token": False}))
    assert detect(("x",)) is None


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}], "gpt-2"),
        ([{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}], "gpt-2"),
        (
            [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
            ],
            "smollm",
        ),
        (
            [
                {"type": "Punctuation", "behavior": "Contiguous"},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
                {"type": "Digits", "individual_digits": False},
                {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": False},
            ],
            "falcon",
        ),
        ([{"type": "ByteLevel", "add_prefix_space": True}], None),
        ([{"type": "Whitespace"}, {"type": "ByteLevel", "use_regex": False}], None),
    ],
)
def test_other_spellings_are_recognised(tmp_path: Path, steps: list[dict[str, Any]], expected: str | None) -> None:
    document = byte_level_json(bpe(), pre_tokenizer={"type": "Sequence", "pretokenizers": steps})
    write(tmp_path, tokenizer__json=document)
    if expected is None:
        with pytest.raises(UnsupportedError, match=rf"Found: {steps[0]['type']}\("):
            ggml_metadata(tmp_path)
    else:
        found = ggml_metadata(tmp_path)
        assert found["tokenizer.ggml.pre"] == expected
        require_parity(found)


def test_expanded_contractions_are_recognised() -> None:
    expression = PRE_TOKENIZERS["qwen2"].expressions[0]
    expanded = expression.replace(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    ).replace(r"[\r\n]", "[\r\n]")
    assert expanded != expression
    assert detect((expanded,)) == "qwen2"


# --- real vocabularies, put in the form of checkpoints ---


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "deepseek-llm", "gpt-2"])
def test_real_byte_level_vocabularies(tmp_path: Path, name: str) -> None:
    vocabulary = Vocabulary.from_metadata(vectors.metadata(name))
    write(tmp_path, tokenizer__json=byte_level_json(vocabulary))
    found = ggml_metadata(tmp_path)
    assert found["tokenizer.ggml.pre"] == vocabulary.pre
    assert found["tokenizer.ggml.tokens"] == vocabulary.tokens
    require_parity(found)


@pytest.mark.parametrize("parts", [{}, METASPACE], ids=["prepend", "metaspace"])
def test_real_sentencepiece_vocabulary(tmp_path: Path, parts: dict[str, Any]) -> None:
    vocabulary = Vocabulary.from_metadata(vectors.metadata("llama-spm"))
    write(tmp_path, tokenizer__json=json.dumps(sentencepiece_json(vocabulary, **parts)))
    found = ggml_metadata(tmp_path)
    require_parity(found)
    for text, expected in vectors.pairs("llama-spm"):
        assert rebuild_encoder(vocabulary).encode(text, parse_special=False) == expected
    assert checkpoints.added_tokens(vocabulary)
