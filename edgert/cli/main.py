"""The `edgert` program: runs a command, and turns errors into one line and an exit code."""

from __future__ import annotations

import gc
import io
import os
import sys
import warnings
from typing import Any

COLLECT_AFTER = 100_000
"""Objects made until the garbage collector looks for cycles. Starting makes some ten thousands, and nearly all live as
long as the process: Python's own threshold looks through them again and again, a sixth of the time to the first token.
"""


def run() -> None:
    """Run the command line. Errors of ours become one line on stderr and the exit code of their class."""
    gc.set_threshold(COLLECT_AFTER)  # before anything large is imported
    from edgert_models.errors import EdgertError

    from edgert.cli.app import app

    warnings.showwarning = _show
    _open_streams()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # where it fails, that is an error, and not for the interpreter to tell when it ends
    except EdgertError as error:
        sys.stderr.write(f"edgert: {' '.join(str(error).split())}\n")
        sys.exit(error.exit_code)
    except OSError as error:  # of files that commands name, they tell themselves
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for the rest of what could not be written
        if isinstance(error, BrokenPipeError):  # nobody reads any more
            sys.exit(1)
        sys.stderr.write(f"edgert: {error.filename or 'the output'}: {error.strerror or error}\n")
        sys.exit(74)  # EX_IOERR
    except KeyboardInterrupt:
        sys.exit(130)


def _open_streams() -> None:
    """In place of what the caller has closed, nothing; and ? for characters that the terminal cannot show."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # their numbers: the least that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115  # for good
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the code."""
    sys.stderr.write(f"edgert: warning: {message}\n")
