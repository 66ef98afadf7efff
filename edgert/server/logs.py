"""What the server says on stderr: a line for each response and each trouble, as text or as JSON.

No line has a prompt, an answer or a key, and none is longer than 8 KiB. What clients choose, such as paths, cannot
begin a line of its own.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

MAX_LINE = 8 << 10
FIELDS = "edgert_fields"
"""The attribute of a log record that has further fields, a mapping."""


def set_up_logging(form: Literal["text", "json"], level: Literal["debug", "info", "warning", "error"]) -> None:
    """Send the logs of this process to stderr: edgert's from `level` on, warnings of all others."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("edgert").setLevel(level.upper())


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, FIELDS, {})
        parts = [_time(record), record.levelname.lower(), _printable(record.getMessage())]
        parts += [f"{name}={_printable(str(value))}" for name, value in fields.items()]
        if record.exc_info:
            parts.append("\n  " + self.formatException(record.exc_info).replace("\n", "\n  "))
        return " ".join(parts)[:MAX_LINE]


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:1000],
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)[-3000:]
        line = json.dumps(entry)
        if len(line) > MAX_LINE:  # of characters that take six bytes
            line = json.dumps({**entry, "message": entry["message"][:200], "exception": ""})
        return line


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
