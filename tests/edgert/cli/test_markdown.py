"""Markdown that arrives piece by piece is shown whole, once."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.markdown import Markdown

from edgert.cli.markdown import MarkdownStream, finished_blocks, keep_line_breaks


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("", ""),
        ("one line", ""),
        ("one paragraph\n", ""),
        ("one\n\n", "one\n\n"),
        ("one\n\ntwo", "one\n\n"),
        ("```\ncode\n\nmore", ""),
        ("```\ncode\n\n```\nafter", "```\ncode\n\n```\n"),
        ("~~~~\n~~~\n\n~~~~\n", "~~~~\n~~~\n\n~~~~\n"),
    ],
)
def test_finished_blocks(text: str, finished: str) -> None:
    assert text[: finished_blocks(text)] == finished


@given(st.text(alphabet="ab `~\n-#", max_size=60), st.text(alphabet="ab `~\n", max_size=30))
def test_what_is_finished_stays_finished(text: str, more: str) -> None:
    assert finished_blocks(text) <= finished_blocks(text + more)


def test_line_breaks_are_kept() -> None:
    assert keep_line_breaks("one\ntwo\n\n```\na\nb\n```\nend") == "one  \ntwo  \n\n```\na\nb\n```\nend  "
    console = Console(file=io.StringIO(), width=60, force_terminal=False)
    with MarkdownStream(console) as stream:
        stream.push("Turning it on.\n")
        stream.push('{"action":"on"}')
    assert [line.strip() for line in console.file.getvalue().split("\n") if line.strip()] == [  # type: ignore[attr-defined]
        "Turning it on.",
        '{"action":"on"}',
    ]


def test_thoughts_come_first_and_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=60, force_terminal=False)
    with MarkdownStream(console) as stream:
        stream.think("*hm*, ")
        stream.think("[b]yes[/b]")
        stream.push("")
        stream.push("*Yes*.")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert [line.strip() for line in shown.split("\n") if line.strip()] == ["*hm*, [b]yes[/b]", "Yes."]
    with MarkdownStream(console) as stream:
        stream.think("stopped")
    assert console.file.getvalue().endswith("stopped\n\n")  # type: ignore[attr-defined]


def test_everything_is_printed_once() -> None:
    answer = "# Title\n\nA *word*.\n\n```python\nx = 1\n\ny = 2\n```\n\n- one\n- two\n"
    console = Console(file=io.StringIO(), width=60, force_terminal=False)
    with MarkdownStream(console) as stream:
        for character in answer:
            stream.push(character)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    whole = Console(file=io.StringIO(), width=60, force_terminal=False)
    whole.print(Markdown(answer))
    words = [line.strip() for line in whole.file.getvalue().splitlines() if line.strip()]  # type: ignore[attr-defined]
    assert [line.strip() for line in shown.splitlines() if line.strip()] == words
