"""The error tree of the whole project. Every error a user can meet is one of these.

    EdgertError
    ├── FileFormatError      a model file (GGUF, safetensors, JSON beside it) is damaged or hostile: file, offset, field
    ├── UnsupportedError     well formed, but edgert does not do it: an architecture, a type, an option
    ├── ConversionError      a checkpoint cannot be converted: missing tensor, NaN weight, full disk, tokenizer mismatch
    ├── BackendError         a backend cannot run here, or failed while running
    │   ├── MemoryBudgetError    the plan of memory does not fit: needed and available bytes
    │   └── EngineError          the engine failed under a request, and is started again
    ├── RequestError         what the caller passed is wrong: parameter and reason
    │   └── ContextLengthError   prompt and answer do not fit the context: tokens and limit
    ├── HubError             a model could not be fetched: network, access, damaged on the way, no room
    ├── VerificationError    a model file is not what its receipt says: the figure or the weights
    ├── TemplateError        a chat template failed, or overran its limits
    ├── DeadlineError        the request took longer than it may
    ├── QueueFullError       as many requests as allowed are waiting already
    └── CancelledError       the request was cancelled, or its session was closed

The command line turns each into one line on stderr and the `exit_code` of its class (sysexits.h numbers where one
fits).
"""

from __future__ import annotations

from pathlib import Path


class EdgertError(Exception):
    """The root of the tree; catch it to catch them all."""

    exit_code = 1


class FileFormatError(EdgertError):
    """A file is damaged, hostile or not what its name says.

    `path` names the file, `offset` the byte where reading stopped (None where no single byte is at fault), `field` what
    was being read there, `reason` what is wrong with it.
    """

    exit_code = 65  # EX_DATAERR

    def __init__(self, path: str | Path, reason: str, *, offset: int | None = None, field: str | None = None) -> None:
        self.path = str(path)
        self.offset = offset
        self.field = field
        self.reason = reason
        place = "" if offset is None else f" at byte {offset}"
        what = "" if field is None else f", {field}"
        super().__init__(f"{self.path}{place}{what}: {reason}")


class UnsupportedError(EdgertError):
    """Well formed, but not something edgert does; the message names it and says what would work."""

    exit_code = 69  # EX_UNAVAILABLE


class ConversionError(EdgertError):
    """A checkpoint cannot be converted; the message names the tensor, the figure or the file at fault."""

    exit_code = 65


class BackendError(EdgertError):
    """A backend cannot run on this machine, or failed while running."""

    exit_code = 70  # EX_SOFTWARE


class MemoryBudgetError(BackendError):
    """The memory planned before loading exceeds what is allowed; `needed` and `available` are bytes."""

    exit_code = 71  # EX_OSERR

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        self.needed = needed
        self.available = available
        super().__init__(message)


class EngineError(BackendError):
    """The engine failed under a request, through no fault of the request; it is started again: try again later."""

    exit_code = 75  # EX_TEMPFAIL


class RequestError(EdgertError):
    """The caller passed something wrong; `parameter` names it."""

    exit_code = 64  # EX_USAGE

    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        self.parameter = parameter
        super().__init__(message)


class ContextLengthError(RequestError):
    """Prompt and answer do not fit into the context; `tokens` and `limit` are token counts."""

    def __init__(self, message: str, *, tokens: int, limit: int, parameter: str | None = None) -> None:
        self.tokens = tokens
        self.limit = limit
        super().__init__(message, parameter=parameter)


class HubError(EdgertError):
    """A model could not be fetched from the hub: it cannot be reached, lets nobody in, sent something damaged, or the
    disk has no room. The message says which, and what would work.
    """

    exit_code = 74  # EX_IOERR


class VerificationError(EdgertError):
    """A model file is not what its receipt says; the message names what differs."""

    exit_code = 1


class TemplateError(EdgertError):
    """A chat template does not compile, raised, or overran its limits of time, output or memory."""

    exit_code = 65


class DeadlineError(EdgertError):
    """The request took longer than it may; what there was of the answer is lost, unless it was streamed."""

    exit_code = 75  # EX_TEMPFAIL


class QueueFullError(EdgertError):
    """As many requests as allowed are waiting already; try again later."""

    exit_code = 75  # EX_TEMPFAIL


class CancelledError(EdgertError):
    """The request was cancelled, or the model was closed while it ran."""

    exit_code = 130
