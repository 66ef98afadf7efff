"""Calls in Python's form, and calls without any tag around them: LFM2, Llama 3 and 4.

A call without a tag is one only at the very beginning of the answer, and only of a function that was given. The sources
are the models' chat templates and, for Python's form, Meta's model cards of Llama 3.2 and 4 ("Tool calling").
"""

from __future__ import annotations

from edgert.text.parsing.base import Calls, CallShape, Format, Parameters, Steps, attempt, tagged
from edgert.text.parsing.json_calls import call_object
from edgert.text.parsing.python_text import call_list
from edgert.text.parsing.scanner import Scanner

_TAG, _START, _END = "<|python_tag|>", "<|python_start|>", "<|python_end|>"


def _lfm2(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
    yield from text.skip_space()
    yield from text.expect("[")
    yield from call_list(text, calls)
    yield from text.skip_space()
    yield from text.accept("<|tool_call_end|>")


def _bare(text: Scanner, calls: Calls, opener: str = "") -> Steps[None]:
    """`{"name": …, "parameters": {…}}`, several with semicolons or nothing between, or a list; or `[f(a=1), g()]`."""
    if opener == _START:
        yield from text.accept(_END)  # Llama 4's template writes the pair without anything in it
    yield from text.skip_space()
    if (yield from text.accept("[")):
        yield from text.skip_space()
        if (yield from text.peek()) == "{":
            yield from _objects(text, calls, ",")
            yield from text.expect("]")
        else:
            yield from call_list(text, calls)
    else:
        yield from _objects(text, calls, ";")
    yield from text.skip_space()
    yield from text.accept(_END)


def _objects(text: Scanner, calls: Calls, between: str) -> Steps[None]:
    """Calls as objects, with `between` between them, or nothing; and the white space after."""
    yield from call_object(text, calls, known=True)
    yield from text.skip_space()
    while (yield from text.accept(between)) or (yield from text.peek()) == "{":
        yield from text.skip_space()
        yield from call_object(text, calls, known=True)
        yield from text.skip_space()


_tagged = tagged((_TAG, _START), _bare)


def _llama(text: Scanner, calls: Calls, fresh: bool) -> Steps[None]:
    """Calls without a tag at the beginning, or with one anywhere."""
    if (yield from text.peek()) in ("{", "[", " ", "\n"):
        fresh = yield from attempt(text, _bare(text, calls))
    yield from _tagged(text, calls, fresh)


LFM2 = Format(
    "lfm2",
    (("<|tool_call_start|>",), ("<|tool_list_start|>",)),
    ("<|tool_call_start|>", "<|tool_call_end|>"),
    tagged(("<|tool_call_start|>",), _lfm2),
    shapes=(
        CallShape(
            "NAME(",
            ")",
            between=", ",
            opening="<|tool_call_start|>[",
            closing="]<|tool_call_end|>",
            parameters=Parameters("KEY=", between=", ", values="python"),
        ),
    ),
)
LLAMA = Format(
    "llama",
    (("<|start_header_id|>", '"parameters": '), (_TAG,), (_START,), ("<|header_start|>", "parameters")),
    (_TAG, _START, _END),
    _llama,
    shapes=(CallShape('{"name": "NAME", "parameters": ', "}", between="; "),),
)
