from __future__ import annotations

from functools import cache

import pytest
from edgert_models.errors import RequestError
from hypothesis import given, settings
from hypothesis import strategies as st

from edgert.text import StopStrings, StreamDecoder, Tokenizer
from tests.quant.vocabulary.tiny import bpe_metadata, spm_metadata


@cache
def tokenizers() -> tuple[Tokenizer, ...]:
    control, defined = ["<|im_end|>"], ["<think>", "é"]
    pieces = ["▁", "▁▁", "h", "▁hi", "é", "字"]
    return (
        Tokenizer.from_gguf(bpe_metadata(control=control, user_defined=defined)),
        Tokenizer.from_gguf(spm_metadata(pieces, range(6), user_defined=["<think>", "▁x"])),
        Tokenizer.from_gguf(spm_metadata(pieces, range(6), add_space_prefix=False)),
    )


@settings(max_examples=400, deadline=None)
@given(data=st.data(), which=st.integers(0, 2), skip_special=st.booleans(), continuation=st.booleans())
def test_pieces_put_together_are_the_whole(
    data: st.DataObject, which: int, skip_special: bool, continuation: bool
) -> None:
    tokenizer = tokenizers()[which]
    # Bytes that begin or continue characters, spaces, and the tokens that are not single bytes.
    first = 3 if which else 0
    likely = [first + byte for byte in (0x20, 0x61, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xFF)]
    rest = list(range(first + 256, tokenizer.vocab_size)) + list(range(first))
    ids = data.draw(st.lists(st.sampled_from(likely + rest) | st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    stream = StreamDecoder(tokenizer, skip_special=skip_special, continuation=continuation)
    text = "".join([*(stream.push(index) for index in ids), stream.flush()])
    assert text == tokenizer.decode(ids, skip_special=skip_special, continuation=continuation)


def test_characters_are_held_back_until_they_are_whole() -> None:
    stream = StreamDecoder(tokenizers()[0])
    assert [stream.push(byte) for byte in "a€".encode()] == ["a", "", "", "€"]
    assert [stream.push(byte) for byte in "🦙".encode()[:3]] == ["", "", ""]
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""
    assert stream.push(0x61) == "a"
    # A byte that cannot continue the character shows at once that it never will be one.
    assert [stream.push(0xE2), stream.push(0x61)] == ["", "\ufffda"]
    with pytest.raises(RequestError, match="token id is 100000; the vocabulary has ids from 0 to"):
        stream.push(100_000)


def feed(stops: list[str], pieces: list[str]) -> tuple[list[str], str | None]:
    matcher = StopStrings(stops)
    shown = []
    for piece in pieces:
        text, hit = matcher.push(piece)
        shown.append(text)
        if hit is not None:
            return shown, hit
    shown.append(matcher.flush())
    return shown, matcher.hit


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "hit"),
    [
        ([], ["a", "b"], ["a", "b", ""], None),
        (["END"], ["a E", "N", "D b"], ["a ", "", ""], "END"),
        (["END"], ["a E", "x"], ["a ", "Ex", ""], None),
        (["END"], ["a EN"], ["a ", "EN"], None),
        (["\n\n"], ["one\n", "two\n", "\nthree"], ["one", "\ntwo", ""], "\n\n"),
        (["aab"], ["aa", "ab"], ["", "a"], "aab"),
        (["b", "ab"], ["xab"], ["x"], "ab"),
        (["ab", "abc"], ["xabc"], ["x"], "ab"),
        (["abcd", "bc"], ["abc", "x"], ["", "a"], "bc"),
        (["abcd", "bc"], ["abc"], ["", "a"], "bc"),
        (["abcd", "bc"], ["abc", "d"], ["", ""], "abcd"),
    ],
)
def test_stop_strings(stops: list[str], pieces: list[str], shown: list[str], hit: str | None) -> None:
    assert feed(stops, pieces) == (shown, hit)


def test_nothing_follows_a_hit() -> None:
    matcher = StopStrings(["."])
    assert matcher.push("a.b") == ("a", ".")
    assert matcher.push("c.") == ("", ".")
    assert matcher.flush() == ""


@settings(max_examples=300, deadline=None)
@given(
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    pieces=st.lists(st.text("abc", max_size=3), max_size=10),
)
def test_stop_strings_by_definition(stops: list[str], pieces: list[str]) -> None:
    text = "".join(pieces)
    places = [text.find(stop) for stop in stops if stop in text]
    shown, hit = feed(stops, pieces)
    assert "".join(shown) == (text[: min(places)] if places else text)
    assert (hit is None) == (not places)
    if hit is not None:
        assert text.startswith(hit, min(places))


@pytest.mark.parametrize("stops", [["a", ""], ["a", 3], ["a", None]])
def test_bad_stop_strings(stops: list[str]) -> None:
    with pytest.raises(RequestError, match=r"stop\[1\] must be a string that is not empty"):
        StopStrings(stops)
