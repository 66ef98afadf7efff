from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from edgert_models.errors import FileFormatError, UnsupportedError
from edgert_quant.vocabulary import Encoder, TokenType, Vocabulary, build_encoder, rebuild_encoder, token_bytes
from edgert_quant.vocabulary.encoders import _without_special
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.quant.vocabulary import vectors
from tests.quant.vocabulary.tiny import bpe_metadata, spm_metadata


@pytest.mark.parametrize("name", [*vectors.NAMES, *vectors.MORE_NAMES])
def test_rebuilt_tokenizers_pass_the_vectors(name: str) -> None:
    encoder = rebuild_encoder(Vocabulary.from_metadata(vectors.metadata(name)))
    for text, expected in vectors.pairs(name):
        assert encoder.encode(text, parse_special=False) == expected, text


def merged_by_definition(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's BPE as its definition says: over and over, merge the leftmost pair that makes the best piece."""
    parts = list(text)
    while True:
        best = None
        for place in range(len(parts) - 1):
            score = scores.get(parts[place] + parts[place + 1])
            if score is not None and (best is None or score > best[0]):
                best = (score, place)
        if best is None:
            return parts
        place = best[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


PIECES = [
    "▁",
    "a",
    "b",
    "n",
    "aa",
    "ab",
    "ba",
    "an",
    "na",
    "ana",
    "nan",
    "aaa",
    "aba",
    "▁a",
    "▁▁",
    "▁▁▁",
    "aaaa",
    "banana",
]


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("abn ", max_size=40),
    scores=st.lists(st.sampled_from([-1.0, -2.0, -3.0, -4.0]), min_size=len(PIECES), max_size=len(PIECES)),
)
def test_sentencepiece_merges_by_definition(text: str, scores: list[float]) -> None:
    metadata = spm_metadata(PIECES, scores)
    vocabulary = Vocabulary.from_metadata(metadata)
    ids = rebuild_encoder(vocabulary).encode(text, parse_special=False)
    expected = merged_by_definition(" ".join(["", text]).replace(" ", "▁"), dict(zip(PIECES, scores, strict=True)))
    assert [vocabulary.tokens[index] for index in ids] == (expected if text else [])


@cache
def llama_spm() -> tuple[Vocabulary, Encoder, dict[str, float]]:
    vocabulary = Vocabulary.from_metadata(vectors.metadata("llama-spm"))
    normal = vocabulary.of_type(TokenType.NORMAL)
    scores = {vocabulary.tokens[index]: float(vocabulary.scores[index]) for index in normal}
    return vocabulary, rebuild_encoder(vocabulary), scores


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60) | st.text("the aio=\n.", max_size=60))
def test_a_real_sentencepiece_vocabulary_merges_by_definition(text: str) -> None:
    vocabulary, encoder, scores = llama_spm()
    expected: list[int] = []
    for part in merged_by_definition("▁" + text.replace(" ", "▁"), scores) if text else []:
        byte_names = [f"<0x{byte:02X}>" for byte in part.encode()]
        expected += [vocabulary.ids[name] for name in ([part] if part in scores else byte_names)]
    assert encoder.encode(text, parse_special=False) == expected


def test_ranking_pairs_would_not_do() -> None:
    # an|a|na: both neighbours make "ana". SentencePiece takes the left one; a table of pairs takes the earlier pair.
    metadata = spm_metadata(["▁", "a", "n", "an", "na", "ana"], [0, 0, 0, -1, -1, -2], add_space_prefix=False)
    vocabulary = Vocabulary.from_metadata(metadata)
    ids = rebuild_encoder(vocabulary).encode("anana", parse_special=False)
    assert [vocabulary.tokens[index] for index in ids] == ["an", "ana"]


def test_special_tokens_in_sentencepiece_text() -> None:
    vocabulary = Vocabulary.from_metadata(
        spm_metadata(["▁", "h", "i", "▁h", "▁hi"], [-9, -9, -9, -2, -1], user_defined=["<think>"])
    )
    encoder = rebuild_encoder(vocabulary)

    def names(text: str, parse_special: bool) -> list[str]:
        return [vocabulary.tokens[index] for index in encoder.encode(text, parse_special=parse_special)]

    assert names("<s>hi</s>hi", True) == ["<s>", "▁hi", "</s>", "▁hi"]
    assert names("<think>", False) == names("<think>", True) == ["<think>"]
    assert names("<s>", True) == ["<s>"]
    assert names("<s>", False) == ["▁", "<0x3C>", "<0x73>", "<0x3E>"]


def test_special_tokens_that_take_white_space() -> None:
    for metadata in (
        spm_metadata(["▁", "h", "i", "▁h", "▁hi"], [-9, -9, -9, -2, -1], add_space_prefix=False),
        bpe_metadata(["h i"], control=["<s>", "</s>"]),
    ):
        first = metadata["tokenizer.ggml.tokens"].index("<s>")
        sides = {"edgert.tokenizer.lstrip_token_ids": [first], "edgert.tokenizer.rstrip_token_ids": [first + 1]}
        vocabulary = Vocabulary.from_metadata(metadata | sides)
        pieces, encoder = token_bytes(vocabulary), rebuild_encoder(vocabulary)

        def said(text: str, parse_special: bool = True) -> str:
            ids = encoder.encode(text, parse_special=parse_special)  # noqa: B023 — called in this turn only
            return b"".join(pieces[index] for index in ids).decode()  # noqa: B023

        assert said("hi \n\u3000<s> hi </s> \t\xa0hi ") == "hi<s> hi </s>hi "
        assert said("</s>  <s>") == "</s><s>"
        assert said("hi <s> hi </s> hi", parse_special=False) == "hi <s> hi </s> hi"


def test_tokens_of_phi3_take_white_space_though_its_files_do_not_say_so() -> None:
    metadata = spm_metadata(["\n", "h"], [-9, -9], user_defined=["<|user|>"]) | {"general.name": "Phi 3 Mini"}
    assert not Vocabulary.from_metadata(metadata).rstrip
    metadata["general.name"] = "Phi-3-mini"
    vocabulary = Vocabulary.from_metadata(metadata)
    assert vocabulary.rstrip == {vocabulary.ids["</s>"], vocabulary.ids["<|user|>"]}
    assert not Vocabulary.from_metadata(metadata | {"tokenizer.huggingface.json": "{}"}).rstrip


def test_special_tokens_in_byte_level_text() -> None:
    vocabulary = Vocabulary.from_metadata(bpe_metadata(control=["<|end|>"], user_defined=["<think>"]))
    encoder = rebuild_encoder(vocabulary)
    end, think = vocabulary.ids["<|end|>"], vocabulary.ids["<think>"]
    assert encoder.encode("a<|end|><think>", parse_special=True) == [vocabulary.ids["a"], end, think]
    without = encoder.encode("a<|end|><think>", parse_special=False)
    assert end not in without
    assert without[-1] == think
    assert b"".join(token_bytes(vocabulary)[index] for index in without) == b"a<|end|><think>"


def test_end_tokens_that_a_file_calls_user_defined_are_control_tokens() -> None:
    metadata = bpe_metadata(user_defined=["<|im_end|>", "<think>"])
    vocabulary = Vocabulary.from_metadata(metadata)
    assert vocabulary.of_type(TokenType.CONTROL) == [vocabulary.ids["<|im_end|>"]]
    assert vocabulary.ids["<|im_end|>"] not in rebuild_encoder(vocabulary).encode("<|im_end|>", parse_special=False)
    # A tokenizer.json says for itself what its tokens are.
    assert not Vocabulary.from_metadata(metadata | {"tokenizer.huggingface.json": "{}"}).of_type(TokenType.CONTROL)


def test_byte_level_text_survives() -> None:
    vocabulary = Vocabulary.from_metadata(bpe_metadata())
    encoder, pieces = rebuild_encoder(vocabulary), token_bytes(vocabulary)

    @settings(max_examples=200, deadline=None)
    @given(text=st.text(max_size=50))
    def check(text: str) -> None:
        assert b"".join(pieces[index] for index in encoder.encode(text, parse_special=False)).decode() == text

    check()


def test_importing_the_package_imports_no_library() -> None:
    code = "import sys, edgert_quant.vocabulary; sys.exit('tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


# --- damaged and odd metadata ---


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tokenizer.ggml.model": None}, FileFormatError, r"tokenizer\.ggml\.model: is missing"),
        ({"tokenizer.ggml.model": 7}, FileFormatError, r"tokenizer\.ggml\.model: is not a string"),
        (
            {"tokenizer.ggml.model": "test"},
            UnsupportedError,
            r"the tokenizer model 'test' is unknown; edgert knows gpt2",
        ),
        (
            {"tokenizer.ggml.pre": "new-fashion"},
            UnsupportedError,
            r"the pre-tokenizer 'new-fashion' is unknown .*Known are",
        ),
        ({"tokenizer.ggml.tokens": None}, FileFormatError, r"tokenizer\.ggml\.tokens: is missing"),
        ({"tokenizer.ggml.tokens": []}, FileFormatError, r"tokens: has 0 entries; from 1 to 16777216 are possible"),
        ({"tokenizer.ggml.tokens": ["a", 1]}, FileFormatError, r"tokens: is not an array of strings"),
        ({"tokenizer.ggml.tokens": "abc"}, FileFormatError, r"tokens: is not an array of strings"),
        ({"tokenizer.ggml.merges": None}, FileFormatError, r"tokenizer\.ggml\.merges: is missing"),
        (
            {"tokenizer.ggml.merges": ["ab"]},
            FileFormatError,
            r"merges: entry 0 is not two pieces with a space between: 'ab'",
        ),
        ({"tokenizer.ggml.merges": ["q zz"]}, FileFormatError, r"merges: entry 0 names 'zz', which is no token"),
        (
            {"tokenizer.ggml.token_type": [1, 1]},
            FileFormatError,
            r"token_type: has 2 entries, but there are 2\d\d tokens",
        ),
        ({"tokenizer.ggml.token_type": "1"}, FileFormatError, r"token_type: is not an array of numbers"),
        ({"tokenizer.ggml.scores": [float("nan")] * 999}, FileFormatError, r"scores: entry 0 is not a number"),
        (
            {"tokenizer.ggml.bos_token_id": 10**6},
            FileFormatError,
            r"bos_token_id: token id 1000000 is outside the vocab",
        ),
        ({"tokenizer.ggml.eos_token_id": "x"}, FileFormatError, r"eos_token_id: is not an integer"),
        (
            {"edgert.tokenizer.stop_token_ids": [-1]},
            FileFormatError,
            r"stop_token_ids: token id -1 is outside the vocabulary",
        ),
        ({"tokenizer.ggml.add_bos_token": 1}, FileFormatError, r"add_bos_token: is not a boolean"),
        (
            {"tokenizer.ggml.add_bos_token": True},
            FileFormatError,
            r"bos_token_id: is missing, though the tokenizer adds",
        ),
    ],
)
def test_damaged_metadata(change: dict[str, object], error: type[Exception], message: str) -> None:
    metadata = {key: value for key, value in (bpe_metadata() | change).items() if value is not None}
    with pytest.raises(error, match=message):
        rebuild_encoder(Vocabulary.from_metadata(metadata))


def test_defaults_and_odd_but_valid_metadata() -> None:
    metadata = bpe_metadata()
    del metadata["tokenizer.ggml.token_type"]
    metadata["tokenizer.ggml.tokens"] = np.array([*metadata["tokenizer.ggml.tokens"], "", "a"], dtype=object)
    metadata["tokenizer.ggml.bos_token_id"] = np.uint32(2**32 - 1)
    vocabulary = Vocabulary.from_metadata(metadata)
    assert vocabulary.bos_id is vocabulary.eos_id is None
    assert not vocabulary.add_bos
    assert vocabulary.tokens[-2] == f"[EMPTY_{len(vocabulary) - 2}]"
    assert vocabulary.ids["a"] < len(vocabulary) - 1
    assert rebuild_encoder(vocabulary).encode("a", parse_special=True) == [vocabulary.ids["a"]]
    spm = Vocabulary.from_metadata(spm_metadata(["a"], [0]))
    assert (spm.bos_id, spm.eos_id, spm.unk_id, spm.add_bos, spm.add_eos) == (1, 2, 0, True, False)


def test_a_sentencepiece_vocabulary_that_cannot_hold_every_text_is_refused() -> None:
    metadata = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.token_type": [1]}
    metadata |= {"tokenizer.ggml.unknown_token_id": 2**32 - 1, "tokenizer.ggml.add_bos_token": False}
    with pytest.raises(UnsupportedError, match="neither all 256 byte tokens nor an unknown token"):
        rebuild_encoder(Vocabulary.from_metadata(metadata))


@pytest.mark.parametrize(
    "json", ["", "{}", "[1]", '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}', "\0"]
)
def test_a_damaged_huggingface_json(json: str) -> None:
    metadata = bpe_metadata() | {"tokenizer.huggingface.json": json}
    with pytest.raises(FileFormatError, match=r"tokenizer\.huggingface\.json: cannot be used: "):
        build_encoder(metadata, Vocabulary.from_metadata(metadata))


def test_a_huggingface_json_with_ids_beyond_the_vocabulary() -> None:
    json = '{"model": {"type": "BPE", "vocab": {"a": 5000}, "merges": []}}'
    metadata = bpe_metadata() | {"tokenizer.huggingface.json": json}
    with pytest.raises(FileFormatError, match=r"has a token id 5000, but the vocabulary has 2\d\d tokens"):
        build_encoder(metadata, Vocabulary.from_metadata(metadata))
    with pytest.raises(FileFormatError, match=r"tokenizer\.huggingface\.json: is not a string"):
        build_encoder(metadata | {"tokenizer.huggingface.json": 1}, Vocabulary.from_metadata(metadata))


def test_a_unigram_tokenizer_without_added_tokens_is_taken_as_it_is() -> None:
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]], "byte_fallback": False}
    for text in (json.dumps({"model": model}), json.dumps({"model": model, "added_tokens": None})):
        assert _without_special(text) is text
