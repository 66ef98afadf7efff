"""What callers give an LLM: one prompt or several, params or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from edgert_models.errors import RequestError

from edgert.chat import ChatPrompt
from edgert.engine.params import SamplingParams
from edgert.engine.structured import StructuredOutputs
from edgert.opened import Prompt
from edgert.reader import Reader


def is_one(prompt: Any) -> bool:
    """Whether this is one prompt (or nothing that can be any) and not several of them."""
    if isinstance(prompt, str | bytes | ChatPrompt | Mapping) or not isinstance(prompt, Iterable):
        return True
    return isinstance(prompt, Sequence | np.ndarray) and len(prompt) > 0 and isinstance(prompt[0], Integral | float)


def reader_of(prompt: Prompt) -> Reader | None:
    """What reads the answer to a prompt; None where all of it is text."""
    return prompt.reader() if isinstance(prompt, ChatPrompt) else None


def params_of(params: Any) -> SamplingParams:
    """Those of one prompt."""
    if params is None:
        return SamplingParams()
    if not isinstance(params, SamplingParams):
        raise RequestError(f"params must be SamplingParams, not {type(params).__name__}", parameter="params")
    return params


def params_of_each(params: Any, count: int) -> Sequence[SamplingParams]:
    """Those of so many prompts: the same for all of them, or a list with one for each."""
    if params is None or isinstance(params, SamplingParams):
        return [params_of(params)] * count
    several = list(params)
    if len(several) != count:
        raise RequestError(f"{count} prompts have {len(several)} params", parameter="params")
    return several


def with_form(params: SamplingParams | None, response_format: Mapping[str, Any] | None) -> SamplingParams:
    """`params` with the form that `response_format` asks for."""
    chosen = params_of(params)
    content = StructuredOutputs.of_response_format(response_format)
    if content is None:
        return chosen
    if chosen.structured_outputs is not None:
        reason = "response_format and structured_outputs cannot both say what the answer is"
        raise RequestError(reason, parameter="response_format")
    return replace(chosen, structured_outputs=content)
