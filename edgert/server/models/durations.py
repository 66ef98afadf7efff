"""Spans of time as people and Ollama's clients write them."""

from __future__ import annotations

import re

from edgert_models.errors import RequestError

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_COUNT = r"(?:\d+(?:\.\d*)?|\.\d+)"
_UNIT = "(?:ns|us|µs|ms|s|m|h)"
PATTERN = f"^-?(?:\\d+(?:\\.\\d*)?|(?:{_COUNT}{_UNIT})+)$"
"""A number, which is seconds, or spans in Go's form: 5m, 1h30m, 1.5s; below 0 means for ever."""
LONGEST = 64
FOR_EVER = 1e9


def seconds(span: str | float, parameter: str) -> float | None:
    """Seconds of a number, or of a text after PATTERN; None for ever. RequestError names `parameter`."""
    if isinstance(span, str):
        if len(span) > LONGEST or not re.search(PATTERN, span, re.ASCII) or span.endswith("\n"):
            reason = f"{parameter}: {span[:LONGEST]!r} is no span of time; write it like 5m or 90s"
            raise RequestError(reason, parameter=parameter)
        parts = re.findall(f"({_COUNT})({_UNIT})", span)
        length = sum(float(count) * _UNITS[unit] for count, unit in parts) if parts else abs(float(span))
        span = -length if span.startswith("-") else length
    return None if span < 0 or span > FOR_EVER else float(span)
