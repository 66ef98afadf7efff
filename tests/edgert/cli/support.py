"""Commands as a user types them: in this process, or in one of their own."""

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in (".", "quant", "runtimes", "models")),
    "NO_COLOR": "1",
    "COLUMNS": "200",
}
QUICK = ("--backend", "reference", "--context", "128")


def run(*arguments: str, stdin: str | None = None) -> Result:
    from edgert.cli.app import app

    return CliRunner().invoke(app, list(arguments), input=stdin)


def process(*arguments: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgert", *arguments]
    environment = {**ENVIRONMENT, **changes}
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=environment, timeout=120, check=False
    )
