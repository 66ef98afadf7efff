"""The `edgert` program: runs a command, and turns errors into one line and an exit code."""

from __future__ import annotations

import gc
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
    try:
        app()
    except EdgertError as error:
        sys.stderr.write(f"edgert: {' '.join(str(error).split())}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the code."""
    sys.stderr.write(f"edgert: warning: {message}\n")
