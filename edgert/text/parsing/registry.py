"""Which parsers the answers of a model need: found by its chat template and its vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgert.text.parsing.bare_calls import LFM2, LLAMA
from edgert.text.parsing.base import Calls, CallShape, Content, Format, Functions, Reasoning, Steps, flow
from edgert.text.parsing.gemma import GEMMA_4
from edgert.text.parsing.harmony import HARMONY
from edgert.text.parsing.json_calls import COMMAND_R, FIREFUNCTION, GIGACHAT, GRANITE, HERMES, NEMOTRON
from edgert.text.parsing.parser import Parser
from edgert.text.parsing.parts import FUNCTIONARY, KIMI_K3, MUSE, SOLAR_OPEN
from edgert.text.parsing.scanner import Scanner
from edgert.text.parsing.token_calls import APERTUS, DEEPSEEK, KIMI_K2, MISTRAL
from edgert.text.parsing.tree_calls import MINIMAX_M3
from edgert.text.parsing.xml_calls import (
    DEEPSEEK_V4,
    DEEPSEEK_V32,
    FUNCTIONARY_31,
    GLM_4,
    HUNYUAN_3,
    MINICPM5,
    MINIMAX_M2,
    QWEN3_CODER,
    SEED_OSS,
)

FORMATS = (
    *(MUSE, HARMONY, KIMI_K2, KIMI_K3, DEEPSEEK_V32, DEEPSEEK_V4, DEEPSEEK, MINIMAX_M2, MINIMAX_M3, SEED_OSS, GLM_4),
    *(
        FUNCTIONARY_31,
        QWEN3_CODER,
        HUNYUAN_3,
        MINICPM5,
        COMMAND_R,
        GEMMA_4,
        LFM2,
        MISTRAL,
        SOLAR_OPEN,
        APERTUS,
        GIGACHAT,
        GRANITE,
        NEMOTRON,
    ),
    *(FUNCTIONARY, FIREFUNCTION, HERMES, LLAMA),
)
"""Every format of calls; of several that fit a template, the first counts."""

BY_TOKEN = (KIMI_K2, DEEPSEEK, GEMMA_4, LFM2, MISTRAL, SOLAR_OPEN, APERTUS, GRANITE, HERMES)
"""Formats that the special token which begins a call gives away."""

REASONING = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<|channel>thought", "<channel|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)
"""Tags around the reasoning before an answer, opening and closing."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a model writes: the format of its calls and the tags of its reasoning, None for what it does not write; and
    `shape`, how it can be held to write calls, None where it cannot.
    """

    calls: Format | None
    reasoning: tuple[str, str] | None
    shape: CallShape | None = None

    @property
    def thoughts(self) -> tuple[str, str] | None:
        """The tags around its reasoning, whichever part reads them."""
        return (None if self.calls is None else self.calls.thoughts) or self.reasoning

    @property
    def opening(self) -> str:
        """What comes before the text for the user."""
        return "" if self.calls is None else self.calls.content

    def has_begun(self, prompt: str) -> bool:
        """Whether a prompt ends with an opening tag of reasoning: then it has begun it for the model."""
        return self.reasoning is not None and prompt.rstrip().endswith(self.reasoning[0])

    def markers(self, *, tools: bool) -> set[str]:
        """The texts that a parser must see, though they may be control tokens."""
        found = set(self.reasoning or ())
        if self.calls is not None and (tools or self.calls.always):
            found.update(self.calls.markers, *(shape.texts for shape in self.calls.shapes))
        return found

    def parser(self, prompt: str, tools: Sequence[Mapping[str, Any]] = ()) -> Parser | None:
        """A parser for the answer to `prompt`, with the `tools` that it offers; None where all text is content."""
        functions = Functions(tools)
        calls = self.calls if self.calls is not None and (functions or self.calls.always) else None
        if calls is None and self.reasoning is None:
            return None
        begun = self.has_begun(prompt)
        return Parser(lambda text: _read(text, calls, functions, self.reasoning, begun))


def dialect(templates: Iterable[str], tokens: Iterable[str] = ()) -> Dialect:
    """The dialect of a model with these chat templates; `tokens` are the special tokens of its vocabulary.

    A template that is given tools but teaches no known form leaves it to the model: then its special tokens tell, and
    where they do not, calls without tags count. Reasoning is told by either, since templates seldom begin it.
    """
    sources = [template for template in templates if template]
    calls = next((form for form in FORMATS if any(form.fits(source) for source in sources)), None)
    known = set(tokens)
    if calls is None and any(re.search(r"tools\b", source) for source in sources):
        calls = next((form for form in BY_TOKEN if form.markers[0] in known), LLAMA)
    shapes = () if calls is None else calls.shapes
    shape = next((shape for shape in shapes if not shape.needs or shape.needs in known), None)
    if calls is not None and (calls.thoughts or calls.reasoning):
        return Dialect(calls, calls.reasoning, shape)
    tags = (tags for tags in REASONING if known.issuperset(tags) or any(tags[1] in source for source in sources))
    return Dialect(calls, next(tags, None), shape)


def _read(
    text: Scanner, calls: Format | None, functions: Functions, tags: tuple[str, str] | None, begun: bool
) -> Steps[None]:
    """A whole answer: reasoning if it begins with some, then content and calls."""
    if tags is not None:
        if not begun:
            yield from text.skip_space()
            begun = yield from text.accept(tags[0])
        if begun:
            yield from flow(text.until(tags[1]), Reasoning, fresh=True)
    fresh = tags is not None
    if calls is None:
        yield from flow(text.until(), Content, fresh=fresh)
    else:
        yield from calls.answer(text, Calls(functions, calls.new_id), fresh)
