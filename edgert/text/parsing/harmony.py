"""OpenAI's harmony: messages on channels. gpt-oss writes all its answers in it.

Source: "OpenAI harmony response format" (openai/harmony, docs/format.md). A message is a header, `<|message|>`, a body
and an end; the header names a channel (`analysis`: reasoning; `final` and `commentary`: for the user) and, of a call,
the recipient: `<|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>`.
"""

from __future__ import annotations

import re

from edgert.text.parsing.base import (
    CallEnd,
    Calls,
    CallShape,
    Content,
    Format,
    Reasoning,
    Steps,
    each,
    messages,
)
from edgert.text.parsing.json_calls import arguments
from edgert.text.parsing.scanner import Malformed, Scanner

_START, _CHANNEL, _CONSTRAIN, _MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>")
_WORDS = re.compile(r"[^<]*")
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([^\s<]+)")


def _answer(text: Scanner, calls: Calls, fresh: bool) -> Steps[None]:
    told: set[object] = set()
    yield from messages(text, _START, lambda: _message(text, calls, told))


def _message(text: Scanner, calls: Calls, told: set[object]) -> Steps[None]:
    """One message. The prompt ends inside a header, so the first one lacks its beginning."""
    yield from text.accept(_START)
    header = yield from text.run(_WORDS)
    channel = ""
    while not (yield from text.accept(_MESSAGE)):
        if (yield from text.accept(_CHANNEL)):
            words = yield from text.run(_WORDS)
            channel = words.split()[0] if words.split() else ""
            header += f" {words}"
        else:
            yield from text.expect(_CONSTRAIN)
            yield from text.run(_WORDS)
    if recipient := _RECIPIENT.search(header):
        yield from _call(text, calls, recipient[1])
        return
    if channel not in ("analysis", "final", "commentary"):
        raise Malformed
    text.unmark()  # a body is text whatever it holds
    kind = Reasoning if channel == "analysis" else Content
    if kind in told:
        yield kind("\n")  # several messages of a kind are told as one text
    told.add(kind)
    yield from each(text.until(*_ENDS, _START), kind)


def _call(text: Scanner, calls: Calls, name: str) -> Steps[None]:
    if name not in calls.functions:
        raise Malformed
    index = yield from arguments(text, calls, name)
    yield CallEnd(index)
    yield from text.skip_space()
    for end in _ENDS:
        if (yield from text.accept(end)):
            return


HARMONY = Format(
    "harmony",
    ((_CHANNEL, _MESSAGE),),
    (_START, _CHANNEL, _CONSTRAIN, _MESSAGE, *_ENDS),
    _answer,
    always=True,
    thoughts=(f"{_CHANNEL}analysis{_MESSAGE}", f"{_ENDS[0]}{_START}assistant"),
    content=f"{_CHANNEL}final{_MESSAGE}",
    # The token after it ends the answer.
    shapes=(CallShape(f"{_CHANNEL}commentary to=functions.NAME {_CONSTRAIN}json{_MESSAGE}"),),
)
