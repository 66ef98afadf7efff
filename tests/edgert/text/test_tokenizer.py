from __future__ import annotations

import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import ConversionError, RequestError, UnsupportedError
from edgert_quant.vocabulary import Vocabulary, ggml_metadata
from hypothesis import given, settings
from hypothesis import strategies as st

from edgert.text import Tokenizer
from tests.quant.vocabulary import vectors
from tests.quant.vocabulary.checkpoints import byte_level_json, post_processor, sentencepiece_json, write
from tests.quant.vocabulary.tiny import bpe_metadata, spm_metadata

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@cache
def bpe() -> Tokenizer:
    return Tokenizer.from_gguf(bpe_metadata(control=SPECIAL, user_defined=["<think>"]))


@cache
def spm() -> Tokenizer:
    pieces = ["▁", "h", "i", "▁h", "▁hi", "é"]
    return Tokenizer.from_gguf(spm_metadata(pieces, [-9, -9, -9, -2, -1, -9], user_defined=["<think>"]))


@cache
def stripping() -> Tokenizer:
    sides = {"edgert.tokenizer.lstrip_token_ids": [256], "edgert.tokenizer.rstrip_token_ids": [257, 258]}
    return Tokenizer.from_gguf(bpe_metadata(control=SPECIAL, user_defined=["<think>"], merges=()) | sides)


@pytest.mark.parametrize("name", ["llama-spm", "gpt-2"])
def test_vectors_decode_to_their_text(name: str) -> None:
    tokenizer = Tokenizer.from_gguf(vectors.metadata(name))
    for text, ids in vectors.pairs(name):
        assert tokenizer.encode(text, add_special=False, parse_special=False) == ids
        assert tokenizer.decode(ids) == text


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=40))
def test_text_survives(text: str) -> None:
    # U+2581 does not: SentencePiece writes spaces so.
    for tokenizer in (bpe(), spm()):
        ids = tokenizer.encode(text, parse_special=False)
        assert tokenizer.decode(ids, skip_special=True) == text
        assert max(ids, default=0) < tokenizer.vocab_size


def test_special_tokens() -> None:
    tokenizer = bpe()
    start, end = (tokenizer.token_id(name) for name in SPECIAL[1:])
    assert start is not None
    assert tokenizer.encode("<|im_start|>") == [start]
    assert start not in tokenizer.encode("<|im_start|>", parse_special=False)
    assert tokenizer.encode("<think>", parse_special=False) == [tokenizer.token_id("<think>")]
    assert tokenizer.is_control(start)
    assert not tokenizer.is_control(0)
    assert tokenizer.token_bytes(start) == b"<|im_start|>"
    assert tokenizer.token_bytes(0xC3) == b"\xc3"
    assert tokenizer.decode(tokenizer.encode("a<|im_start|><think>b")) == "a<|im_start|><think>b"
    assert tokenizer.decode(tokenizer.encode("a<|im_start|><think>b"), skip_special=True) == "a<think>b"
    assert tokenizer.stop_ids == {tokenizer.token_id("<|endoftext|>"), end}
    assert tokenizer.token_id("no such token") is None


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from([*SPECIAL, "<think>", "<s>", "</s>", "<unk>"])
        | st.sampled_from([" ", "\n"])
        | st.text(max_size=5),
        max_size=8,
    )
)
def test_texts_that_stand_for_others_are_text(parts: list[str]) -> None:
    text = "".join(parts).replace("\U00100000", "")
    for tokenizer in (bpe(), spm(), stripping()):
        assert tokenizer.encode_around(text, {}) == tokenizer.encode(text, add_special=False)
        # A name that is spelled out is no token of that name, wherever it stands.
        name = tokenizer.vocabulary.tokens[min(tokenizer._hidden)]
        around = tokenizer.encode_around(f"{text} \U00100000 {text}", {"\U00100000": name})
        plain = tokenizer.encode(f"{text} x {text}", add_special=False)
        hidden, expected = ([index for index in ids if tokenizer.is_control(index)] for ids in (around, plain))
        assert hidden == expected


def test_begin_and_end_tokens() -> None:
    plain = spm_metadata(["▁", "h"], [-1, -1])
    hi = [tokenizer_id(plain, "▁"), tokenizer_id(plain, "h")]
    both = plain | {"tokenizer.ggml.add_eos_token": True}
    assert Tokenizer.from_gguf(plain).encode("h") == [1, *hi]
    assert Tokenizer.from_gguf(both).encode("h") == [1, *hi, 2]
    assert Tokenizer.from_gguf(both).encode("h", add_special=False) == hi
    assert Tokenizer.from_gguf(both).encode("") == [1, 2]
    assert Tokenizer.from_gguf(plain | {"tokenizer.ggml.add_bos_token": False}).encode("h") == hi
    tokenizer = Tokenizer.from_gguf(plain)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.bos_token, tokenizer.eos_token) == (1, 2, "<s>", "</s>")
    none = Tokenizer.from_gguf(bpe_metadata())
    assert (none.bos_id, none.eos_id, none.bos_token, none.eos_token) == (None, None, "", "")
    assert none.encode("") == []
    assert none.stop_ids == frozenset()


def tokenizer_id(metadata: dict[str, Any], name: str) -> int:
    index: int = metadata["tokenizer.ggml.tokens"].index(name)
    return index


def test_a_post_processor_does_not_double_the_begin_token(tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_metadata(spm_metadata(["▁", "h"], [-1, -1]))
    document = sentencepiece_json(vocabulary, post_processor=post_processor("<s>", ends=("</s>",)))
    write(tmp_path, tokenizer__json=document, tokenizer_config__json={"bos_token": "<s>", "eos_token": "</s>"})
    tokenizer = Tokenizer.from_folder(tmp_path)
    hi = [tokenizer.token_id("▁"), tokenizer.token_id("h")]
    assert tokenizer.encode("h") == [1, *hi, 2]
    assert tokenizer.encode("h", add_special=False) == hi


def test_truncation_and_padding_of_the_json_are_switched_off(tmp_path: Path) -> None:
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
    }
    document = byte_level_json(bpe().vocabulary, truncation=truncation, padding=padding | {"pad_token": "!"})
    tokenizer = Tokenizer.from_folder(write(tmp_path, tokenizer__json=document))
    assert len(tokenizer.encode("abcdef")) == 6
    assert len(tokenizer.encode("a")) == 1


def test_a_folder_with_a_pre_tokenizer_unknown_to_gguf_is_usable(tmp_path: Path) -> None:
    document = byte_level_json(bpe().vocabulary)
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "odd+"
    write(tmp_path, tokenizer__json=document)
    with pytest.raises(UnsupportedError):
        ggml_metadata(tmp_path)
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.decode(tokenizer.encode("some text")) == "some text"
    with pytest.raises(ConversionError, match=r"has none of tokenizer\.json, tokenizer\.model, tekken"):
        Tokenizer.from_folder(tmp_path / "missing")


def test_leading_spaces_of_sentencepiece() -> None:
    tokenizer = spm()
    hi, space = tokenizer.token_id("▁hi"), tokenizer.token_id("▁")
    assert hi is not None
    assert space is not None
    assert tokenizer.encode("hi", add_special=False) == [hi]
    assert tokenizer.encode(" hi", add_special=False) == [space, hi]
    assert tokenizer.decode([hi]) == "hi"
    assert tokenizer.decode([space, hi]) == " hi"
    assert tokenizer.decode([hi], continuation=True) == " hi"
    assert tokenizer.decode([1, hi, hi]) == "<s>hi hi"
    assert tokenizer.decode([1, hi, hi], skip_special=True) == "hi hi"
    think = tokenizer.token_id("<think>")
    assert think is not None
    assert tokenizer.decode([think, hi]) == "<think> hi"
    assert tokenizer.decode([3 + 0x20, hi]) == " hi"  # a byte token of a space is a space like any other
    without = Tokenizer.from_gguf(spm_metadata(["▁hi"], [0], add_space_prefix=False))
    assert without.decode([without.vocab_size - 1]) == " hi"


def test_stop_ids_of_harmony_vocabularies() -> None:
    names = ["<|end|>", "<|return|>", "<|call|>"]
    tokenizer = Tokenizer.from_gguf(bpe_metadata(control=names))
    assert {tokenizer.vocabulary.tokens[index] for index in tokenizer.stop_ids} == {"<|return|>", "<|call|>"}
    listed = bpe_metadata() | {"edgert.tokenizer.stop_token_ids": np.array([3, 4], np.int32)}
    assert Tokenizer.from_gguf(listed).stop_ids == {3, 4}


def test_no_tokenizer_is_said() -> None:
    with pytest.raises(UnsupportedError, match="the file has no tokenizer; it takes token ids only"):
        Tokenizer.from_gguf({"tokenizer.ggml.model": "none"})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.encode("ab\ud800c"), r"text has a lone surrogate \(U\+D800\) at character 2"),
        (lambda t: t.encode(b"bytes"), "text must be a string, not bytes"),
        (lambda t: t.encode(None), "text must be a string, not NoneType"),
        (lambda t: t.decode([1, -1]), r"ids\[1\] is -1; the vocabulary has ids from 0 to 26\d"),
        (lambda t: t.decode([10**9]), r"ids\[0\] is 1000000000; the vocabulary has ids from 0"),
        (lambda t: t.decode(["a"]), r"ids\[0\] is 'a'; the vocabulary has ids"),
        (lambda t: t.decode([True]), r"ids\[0\] is True; the vocabulary has ids"),
        (lambda t: t.decode([0.5]), r"ids\[0\] is 0\.5; the vocabulary has ids"),
        (lambda t: t.token_bytes(-1), "token id is -1; the vocabulary has ids"),
        (lambda t: t.is_control(10**6), "token id is 1000000; the vocabulary has ids"),
    ],
)
def test_bad_requests(call: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        call(bpe())


def test_decode_takes_numpy_ids() -> None:
    assert bpe().decode(np.array([97, 98])) == "ab"


@pytest.mark.parametrize("unit", ["a", " ", "ab", "\n", "=", "1", "👨‍👩‍👧🦙", "é", "字"])
@pytest.mark.parametrize("name", ["llama-spm", "qwen2"])
def test_long_runs_take_no_quadratic_time(name: str, unit: str) -> None:
    tokenizer = long_run_tokenizer(name)

    def seconds(count: int) -> float:
        text = unit * (count // len(unit))
        begin = time.process_time()
        ids = tokenizer.encode(text, add_special=False)
        spent = time.process_time() - begin
        assert tokenizer.decode(ids) == text
        return spent

    # Sixteen times the text may take 16 times as long, and some: quadratic would be 256 times.
    assert seconds(160_000) < 80 * max(seconds(10_000), 0.005)


@cache
def long_run_tokenizer(name: str) -> Tokenizer:
    return Tokenizer.from_gguf(vectors.metadata(name))


def test_threads_agree() -> None:
    tokenizer = Tokenizer.from_gguf(bpe_metadata(control=SPECIAL))
    text = "the thin thing <|im_end|> in there " * 50
    expected = {flag: bpe_ids(text, parse_special=flag) for flag in (True, False)}
    wrong = []

    def work(flag: bool) -> None:
        for _ in range(20):
            if tokenizer.encode(text, parse_special=flag) != expected[flag]:
                wrong.append(flag)

    threads = [threading.Thread(target=work, args=(place % 2 == 0,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def bpe_ids(text: str, *, parse_special: bool) -> list[int]:
    return Tokenizer.from_gguf(bpe_metadata(control=SPECIAL)).encode(text, parse_special=parse_special)


def test_importing_is_light() -> None:
    code = "import sys, edgert.text; sys.exit(any(name in sys.modules for name in ('tokenizers', 'jinja2', 'numba')))"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
