"""A model that says what it is told to: for tests of what answers are read as."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from edgert_runtimes.base import Batch, Limits, LoadReport, OpTime, Probe

from edgert import LLM
from tests.edgert.tiny_gguf import tokenizer_entries, write_tiny

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}<think></think>{% endif %}"
    "{% endif %}"
)
"""Calls as Hermes writes them, and reasoning."""

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a place",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
    {"type": "function", "function": {"name": "now"}},
]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
ANSWER = f'<think>\nI look.\n</think>\n\nOne moment.\n{CALL}\n<tool_call>{{"name": "now"}}</tool_call>'
"""Reasoning, content, and two calls."""


class ScriptedSession:
    """Whatever it is asked, the likeliest token is the next of `script`, or its last. For one request at a time."""

    def __init__(self, limits: Limits, vocabulary: int) -> None:
        self.limits = limits
        self.report = LoadReport(
            backend="scripted",
            threads=1,
            instruction_set="none",
            weights=(),
            cache_bytes=0,
            workspace_bytes=0,
            seconds=0.0,
        )
        self.script: Sequence[int] = ()
        self.begin: int | None = None
        self.pace = 0.0  # seconds that a step takes
        self._vocabulary = vocabulary

    def step(self, batch: Batch, *, hidden: bool = False) -> np.ndarray:
        assert not hidden
        time.sleep(self.pace)
        logits = np.zeros((len(batch.pick), self._vocabulary), np.float32)
        for row, pick in enumerate(batch.pick):
            position = int(batch.positions[pick])
            self.begin = position if self.begin is None else self.begin
            logits[row, self.script[min(position - self.begin, len(self.script) - 1)]] = 100.0
        return logits

    def interrupt(self) -> None: ...

    def profile(self, on: bool) -> list[OpTime]:
        return []

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None: ...

    def close(self) -> None: ...


class ScriptedBackend:
    name = "scripted"
    session: ScriptedSession

    def probe(self) -> Probe:
        return Probe(True, "")

    def load(self, plan: Any, weights: Any, limits: Limits, progress: Any = None) -> ScriptedSession:
        self.session = ScriptedSession(limits, plan.weights["token_embd.weight"].shape[0])
        return self.session


class Say(Protocol):
    """Sets what a model says next, up to its end token, and the seconds that it takes for each token."""

    def __call__(self, text: str, pace: float = 0.0) -> None: ...


def open_scripted(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    template: str = TEMPLATE,
    special: Sequence[str] = (),
    context: int = 2048,
) -> tuple[LLM, Say]:
    """A model with this chat template, and a function that sets what it says.

    `special` are further control tokens of its vocabulary.
    """
    entries = tokenizer_entries(template)
    entries["tokenizer.ggml.tokens"] = [*entries["tokenizer.ggml.tokens"], *special]
    types = entries["tokenizer.ggml.token_type"]
    entries["tokenizer.ggml.token_type"] = np.append(types, np.full(len(special), 3, np.int32))
    path = write_tiny(folder / "scripted.gguf", tokenizer=entries, padding=len(special), context=context)
    backend = ScriptedBackend()
    monkeypatch.setattr("edgert.llm.get_backend", lambda name: backend)
    llm = LLM(path, context=context)

    def say(text: str, pace: float = 0.0) -> None:
        end = llm.tokenizer.eos_id
        assert end is not None
        backend.session.begin, backend.session.pace = None, pace
        backend.session.script = [*llm.tokenize(text, add_special=False), end]

    return llm, say
