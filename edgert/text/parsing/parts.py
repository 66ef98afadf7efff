"""Answers in parts, each of which says what it is: Solar Open, Kimi-K3, Muse (ATEM), Functionary 3.2.

The sources are the models' chat templates. Like harmony's, their answers have this form without tools too.
"""

from __future__ import annotations

import re

from edgert.text.parsing.base import (
    CallEnd,
    Calls,
    CallShape,
    Content,
    Format,
    Parameters,
    Reasoning,
    Steps,
    attempt,
    each,
    flow,
    messages,
)
from edgert.text.parsing.json_calls import arguments
from edgert.text.parsing.scanner import Scanner
from edgert.text.parsing.token_calls import solar_call
from edgert.text.parsing.xml_calls import KIMI_TAGS, invokes, kimi_calls

_BEGIN, _THINK, _SAYS, _CALLS, _END = "<|begin|>", "<|think|>", "<|content|>", "<|tool_calls|>", "<|end|>"
_CALL = "<|tool_call:begin|>"


def _solar(text: Scanner, calls: Calls, fresh: bool) -> Steps[None]:
    yield from messages(text, _BEGIN, lambda: _solar_part(text, calls))


def _solar_part(text: Scanner, calls: Calls) -> Steps[None]:
    """`<|think|>…<|end|>`, `<|content|>…<|end|>` or `<|tool_calls|>` and calls; the prompt has begun the first."""
    if (yield from text.accept(_BEGIN)):
        yield from text.expect("assistant")
    for opener, kind in ((_THINK, Reasoning), (_SAYS, Content)):
        if (yield from text.accept(opener)):
            text.unmark()  # a body is text whatever it holds
            yield from each(text.until(_END), kind)
            return
    yield from text.accept(_CALLS)
    yield from text.expect(_CALL)
    yield from solar_call(text, calls)
    while (yield from text.accept(_CALL)):
        yield from solar_call(text, calls)
    yield from text.accept("<|calls|>")


SOLAR_OPEN = Format(
    "solar-open",
    ((_CALL,),),
    (*(f"<|tool_call:{name}|>" for name in ("begin", "name", "args", "end")), _BEGIN, _THINK, _SAYS, _CALLS, _END),
    _solar,
    always=True,
    thoughts=(_THINK, f"{_END}{_BEGIN}assistant"),
    content=_SAYS,
    shapes=(CallShape(f"{_CALL}<|tool_call:name|>NAME<|tool_call:args|>", "<|tool_call:end|>", "", _CALLS),),
)

_PARTS = ("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>")
_TOOLS = "<|open|>tools<|sep|>"


def _kimi(text: Scanner, calls: Calls, fresh: bool) -> Steps[None]:
    """What is between the tags of the response, and after them the calls."""
    while True:
        space, tag = yield from flow(text.until(*_PARTS, _TOOLS), Content, fresh=fresh)
        if tag is None:
            return
        fresh = True
        if tag == _TOOLS:
            fresh = yield from attempt(text, kimi_calls(text, calls, tag), space + tag)


KIMI_K3 = Format(
    "kimi-k3",
    (("<|open|>", "<|close|>", "<|sep|>"),),
    ("<|open|>", "<|close|>", "<|sep|>"),
    _kimi,
    always=True,
    content=_PARTS[0],
    reasoning=("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    shapes=(
        CallShape(
            '<|open|>call tool="NAME" index="NUMBER"<|sep|>',
            "<|close|>call<|sep|>",
            between="",
            opening=f"{_PARTS[0]}{_PARTS[1]}{_TOOLS}",
            closing=f"<|close|>tools<|sep|>{_PARTS[2]}",
            parameters=KIMI_TAGS,
        ),
    ),
)

_START, _MESSAGE, _MESSAGE_ENDS = "<|start|>", "<|message|>", ("<|eom|>", "<|eot|>")
_HEADER = re.compile(r"[^<]*")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_ATEM = {"<atem:function_calls>": "</atem:function_calls>"}
_atem_calls = invokes(_ATEM, "atem:")


def _muse(text: Scanner, calls: Calls, fresh: bool) -> Steps[None]:
    yield from messages(text, _START, lambda: _muse_message(text, calls))


def _muse_message(text: Scanner, calls: Calls) -> Steps[None]:
    """` to=RECIPIENT<|message|>` and a body: reasoning to `self`, content to `user`, calls to everyone else."""
    yield from text.accept(_START)
    recipient = _RECIPIENT.search((yield from text.run(_HEADER)))
    yield from text.expect(_MESSAGE)
    if recipient is None or recipient[1] in ("self", "user"):
        text.unmark()  # a body is text whatever it holds
        kind = Reasoning if recipient is not None and recipient[1] == "self" else Content
        yield from each(text.until(*_MESSAGE_ENDS, _START), kind)
        return
    yield from text.skip_space()
    (opener,) = _ATEM
    yield from text.expect(opener)
    yield from _atem_calls(text, calls, opener)
    yield from text.skip_space()
    for end in _MESSAGE_ENDS:
        if (yield from text.accept(end)):
            return


MUSE = Format(
    "muse",
    (("<atem:function_calls>",),),
    (_START, _MESSAGE, *_MESSAGE_ENDS),
    _muse,
    always=True,
    thoughts=(f" to=self{_MESSAGE}", f"{_MESSAGE_ENDS[0]}{_START}assistant"),
    content=f" to=user{_MESSAGE}",
    shapes=(
        CallShape(
            f' to=NAME{_MESSAGE}<atem:function_calls>\n<atem:invoke name="NAME">\n',
            "</atem:invoke>\n</atem:function_calls>",
            between=f"{_MESSAGE_ENDS[0]}{_START}assistant",
            parameters=Parameters('<atem:parameter name="KEY">', "</atem:parameter>\n"),
        ),
    ),
)

_PROMPT = ">>>"


def _functionary(text: Scanner, calls: Calls, fresh: bool) -> Steps[None]:
    """`all` and text, or a function's name and JSON, each on lines of their own and with `>>>` between."""
    names = ("all", *calls.functions)
    yield from text.accept(_PROMPT)
    name: str | None = None
    for known in names:
        if (yield from text.accept(f"{known}\n")):
            name = known
            break
    while name is not None:
        if name != "all":
            yield from attempt(text, _functionary_call(text, calls, name), f"{name}\n")
        begins = tuple(f"{_PROMPT}{known}\n" for known in names)
        _, begin = yield from flow(text.until(*begins), Content, fresh=name != "all")
        name = None if begin is None else begin[len(_PROMPT) : -1]
    yield from each(text.until(), Content)


def _functionary_call(text: Scanner, calls: Calls, name: str) -> Steps[None]:
    yield CallEnd((yield from arguments(text, calls, name)))


FUNCTIONARY = Format(
    "functionary-3.2",
    ((">>>all\n",), (">>>all\\n",)),
    (),
    _functionary,
    always=True,
    content="all\n",
    shapes=(CallShape("NAME\n", between=_PROMPT),),
)
