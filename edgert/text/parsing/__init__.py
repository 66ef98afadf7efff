"""Reasoning and tool calls out of the text of answers, while it comes."""

from edgert.text.parsing.base import (
    CallArguments,
    CallDropped,
    CallEnd,
    CallShape,
    CallStart,
    Content,
    Event,
    Parameters,
    Reasoning,
)
from edgert.text.parsing.parser import Parser
from edgert.text.parsing.registry import FORMATS, Dialect, dialect

__all__ = [
    "FORMATS",
    "CallArguments",
    "CallDropped",
    "CallEnd",
    "CallShape",
    "CallStart",
    "Content",
    "Dialect",
    "Event",
    "Parameters",
    "Parser",
    "Reasoning",
    "dialect",
]
