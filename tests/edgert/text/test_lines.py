"""Answers that end by their lines: whichever pieces a text comes in, the same is shown."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgert.text import Lines

TEXT = st.text(alphabet="ab \t\n", max_size=24)


def shown(text: str, cuts: list[int], indent: int) -> tuple[str, bool]:
    lines, said = Lines(indent, None), ""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for begin, end in pairwise(places):
        said += lines.push(text[begin:end], 0.0)
    return said + lines.flush(), lines.ended


@pytest.mark.parametrize(
    ("text", "indent", "expected", "ended"),
    [
        ("x\n    y\n    z\n  w", 4, "x\n    y\n    z", True),
        ("x\n    y\n", 4, "x\n    y\n", False),  # the next line may still be indented
        ("x\n\n    y", 4, "x", True),  # as llama.cpp has it, an empty line is one without indentation
        ("x\n\ty", 1, "x\n\ty", False),
        ("  x\ny", 0, "  x\ny", False),
    ],
)
def test_lines_that_are_not_indented_enough(text: str, indent: int, expected: str, ended: bool) -> None:
    assert shown(text, [], indent) == (expected, ended)


@given(TEXT, st.lists(st.integers(0, 50), max_size=6), st.integers(0, 3))
def test_pieces_make_no_difference(text: str, cuts: list[int], indent: int) -> None:
    said, ended = shown(text, [], indent)
    assert shown(text, cuts, indent) == (said, ended)
    first, *others = said.split("\n")
    assert text.startswith(said)
    if ended:
        assert all(len(line) - len(line.lstrip(" \t")) >= indent for line in others)
        assert text[len(said)] == "\n"
    else:
        assert said == text
    assert first == text.split("\n")[0]


def test_after_some_time_the_line_is_the_last() -> None:
    lines = Lines(0, 1.0)
    assert [lines.push("a\n", 0.5), lines.push("b", 1.5), lines.ended] == ["a\n", "b", False]
    assert [lines.push("c\nd", 1.6), lines.ended, lines.push("e", 1.7), lines.flush()] == ["c\nd", True, "", ""]
