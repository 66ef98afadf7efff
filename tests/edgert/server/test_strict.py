"""Bodies of megabytes that are made to take time and memory, read in a process that has little memory."""

from __future__ import annotations

import pytest

from tests.support.budget import run_limited

SCRIPT = """
import edgert.server.strict as strict

MIB = 1 << 20
BODIES = {
    "open": b"[" * (8 * MIB),
    "flat": b"[]" * (4 * MIB),
    "nested": b"[" * (4 * MIB) + b"]" * (4 * MIB),
    "mounds": (b"[" * 60 + b"]" * 60) * (MIB // 16),
    "objects": b"[" + b"{}," * (2 * MIB) + b"{}]",
    "numbers": b"[" + b"0," * (4 * MIB - 2) + b"0]",
    "text": b'"' + b"a" * (8 * MIB - 2) + b'"',
    "escapes": b'"' + b"\\\\n" * (4 * MIB - 1) + b'"',
    "no end": b'"' + b"\\\\" * (4 * MIB),
    "twice": b"{" + b",".join(b'"%d":0' % (number // 2) for number in range(4000)) + b"}",
    "keys": b"{" + b",".join(b'"%d":0' % number for number in range(400_000)) + b"}",
    "key": b'{"' + b"k" * (4 * MIB - 8) + b'":0,"' + b"k" * (4 * MIB - 8) + b'":0}',
    "digits": b"1" * (8 * MIB),
}
limit_memory(200 * MIB)
found = {}
for name, body in BODIES.items():
    assert len(body) <= 8 * MIB, name
    try:
        strict._parsed(body)
        found[name] = "read"
    except ValueError as error:
        found[name] = str(error)[:40]
print(json.dumps(found))
"""


def test_hostile_bodies_take_little_memory() -> None:
    assert run_limited(SCRIPT) == {
        "open": "more than 524288 values: line 1 column 1",
        "flat": "more than 524288 values: line 1 column 1",
        "nested": "more than 524288 values: line 1 column 1",
        "mounds": "more than 524288 values: line 1 column 1",
        "objects": "more than 524288 values: line 1 column 1",
        "numbers": "more than 524288 values: line 1 column 1",
        "text": "read",
        "escapes": "read",
        "no end": "Unterminated string starting at: line 1 ",
        "twice": "the key '0' is there twice: line 1 colum",
        "keys": "an object has more than 4096 keys: line ",
        "key": "the key 'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
        "digits": "Exceeds the limit (4300 digits) for inte",
    }


def test_depths() -> None:
    from edgert.server.strict import _depth

    assert _depth(b'{"a": [[], {"b": [1, "[[[["]}]}') == 4
    assert _depth(b'"\\"[[[" [') == 1
    assert _depth(b'"[[[') == 0
    assert _depth(b"][][") == 0
    assert _depth(b"") == 0
    assert _depth(b"[" * 40 + b"]" * 40 + b"[" * 41) == 41
    assert _depth(b"[]" * 100_000 + b"[" * 30) == 30
    assert _depth(b"[" * 1_000_000) > 64


def test_complaints_are_few() -> None:
    """A list is looked at up to its first fault, whatever it is part of."""
    from pydantic import ValidationError

    from edgert.server.native.completion import CompletionRequest
    from edgert.server.native.requests import DetokenizeRequest
    from edgert.server.openai.requests import ChatRequest

    many = 10_000
    message = {"role": "user", "content": [1] * many}
    for model, body in (
        (DetokenizeRequest, {"tokens": ["a"] * many}),
        (CompletionRequest, {"prompt": [True] * many}),
        (ChatRequest, {"model": "x", "messages": [1] * many}),
        (ChatRequest, {"model": "x", "messages": [message] * 100}),
    ):
        with pytest.raises(ValidationError) as caught:
            model.model_validate(body)
        assert caught.value.error_count() < 12
