"""However an answer is cut into pieces, it comes to the same; and no text is an error."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgert.text.parsing import FORMATS
from edgert.text.parsing.registry import REASONING
from tests.edgert.text.parsing.answers import ANSWERS, MALFORMED, THINK, Parsed, parse

TEXTS = [(name, answer) for name, answer, *_ in [*ANSWERS, *MALFORMED]]
WORDS = [
    *sorted({marker for form in FORMATS for marker in form.markers} | {tag for tags in REASONING for tag in tags}),
    *("now", "get_weather", "save", "city", "functions.now", "function", "analysis", "final", "commentary", " to="),
    *('{"name": "now", "arguments": ', '{"name": "now", "parameters": {}}', "[now(", "a=", "now()", "{}", "```json"),
    *("<function=now>", "</function>", "<parameter=city>", "</parameter>", '<invoke name="now">', "</invoke>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", *"{}[]()\"':,;=<>\\/| \n01.-eu", "true", "None", "é🦙"),
]


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places} | {len(text)})
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def without_ids(parsed: Parsed) -> Parsed:
    parsed.ids = []
    return parsed


@settings(max_examples=300, deadline=None)
@given(which=st.sampled_from(TEXTS), places=st.lists(st.integers(0, 1000), max_size=12))
def test_known_answers_in_any_pieces(which: tuple[str, str], places: list[int]) -> None:
    name, answer = which
    assert without_ids(parse(name, cut(answer, places))) == without_ids(parse(name, answer))


@pytest.mark.parametrize("name", [form.name for form in FORMATS])
def test_junk_in_any_pieces(name: str) -> None:
    junk = st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=25).map("".join)

    @settings(max_examples=50, deadline=None)
    @given(answer=junk, places=st.lists(st.integers(0, 1000), max_size=12), begun=st.booleans())
    def check(answer: str, places: list[int], begun: bool) -> None:
        options = {"reasoning": THINK, "prompt": "<think>\n" if begun else ""}
        whole = without_ids(parse(name, answer, **options))
        assert without_ids(parse(name, cut(answer, places), **options)) == whole
        assert without_ids(parse(name, list(answer), **options)) == whole

    check()


@settings(max_examples=200, deadline=None)
@given(
    which=st.sampled_from(TEXTS),
    at=st.integers(0, 1000),
    length=st.integers(0, 20),
    put=st.sampled_from(["", *WORDS]),
    places=st.lists(st.integers(0, 1000), max_size=8),
)
def test_damaged_answers_in_any_pieces(
    which: tuple[str, str], at: int, length: int, put: str, places: list[int]
) -> None:
    name, answer = which
    at %= len(answer) + 1
    damaged = answer[:at] + put + answer[at + length :]
    assert without_ids(parse(name, cut(damaged, places))) == without_ids(parse(name, damaged))


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=80))
def test_text_without_tags_is_content_to_the_letter(text: str) -> None:
    text = re.sub(r"[<\[{|]", "", text)
    for form in FORMATS:
        assert parse(form.name, list(text)).content == text
