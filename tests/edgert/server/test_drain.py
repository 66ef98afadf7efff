"""What SIGTERM does: the answers under way are finished, and then the process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx


def test_sigterm_drains(tiny_path: Path) -> None:
    command = [sys.executable, "-m", "edgert", "serve", str(tiny_path), "--backend", "reference", "--port", "0"]
    environment = {**os.environ, "EDGERT_CONTEXT": "1024"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            name, url = server.stdout.readline().strip().split(" at ")
            body = {"model": name, "prompt": "hello", "max_tokens": 400, "stream": True, "logit_bias": {"60": 100}}
            with httpx.stream("POST", f"{url}/completions", json=body, timeout=60) as response:
                lines = response.iter_lines()
                assert next(lines).startswith("data: ")
                server.send_signal(signal.SIGTERM)
                rest = [line for line in lines if line]
            assert rest[-1] == "data: [DONE]"
            assert '"finish_reason":"length"' in rest[-2]
            assert server.wait(30) == 0
        finally:
            server.kill()
