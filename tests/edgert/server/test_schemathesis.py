"""The served OpenAPI document is true: what it allows is taken, what it forbids refused, and all answers are in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served

PROGRAM = shutil.which("schemathesis")
EXAMPLES = os.environ.get("EDGERT_SCHEMATHESIS", "5")
"""Of each operation; 260 make more than 5,000 cases."""
CONFIG = Path(__file__).with_name("schemathesis.toml")
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")


@pytest.mark.slow
@pytest.mark.parametrize("server_model", ["reference"], indirect=True)
@pytest.mark.skipif(PROGRAM is None, reason="schemathesis is not on the PATH")
def test_the_document_is_true(served: Served, tmp_path: Path) -> None:
    assert PROGRAM is not None
    document = f"{served.url}/openapi.json"
    command = [PROGRAM, f"--config-file={CONFIG}", "run", document, "--checks=all", "--phases=fuzzing"]
    # Seconds, on a busy machine.
    options = [f"--max-examples={EXAMPLES}", "--seed=1", "--no-color", "--request-timeout=60"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"EDGERT_TEST_MODEL": served.llm.name, "SCHEMATHESIS_HOOKS": str(HOOKS)}
    ran = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-1000:]
    assert "passed" in ran.stdout
