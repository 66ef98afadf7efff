"""The parent's side of the template worker: starts it, talks to it, and kills it when its time is up."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgert_models.errors import TemplateError

_LENGTH = struct.Struct(">I")
_START_SECONDS = 30.0
_SCRIPT = Path(__file__).with_name("template_worker.py")


class TemplateWorker:
    """One worker process, started with the first render and again whenever it has ended. Safe to use from threads.

    `timeout` is wall time for one render in seconds, `max_output` and `max_memory` are bytes.
    """

    def __init__(self, *, timeout: float, max_output: int, max_memory: int) -> None:
        self.timeout, self.max_output, self.max_memory = timeout, max_output, max_memory
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._end: weakref.finalize[Any, Any] | None = None

    def render(self, source: str, context: dict[str, Any]) -> str:
        """The text that the template `source` makes of `context` (JSON); `TemplateError` where it makes none."""
        request = {"source": source, "context": context, "max_output": self.max_output, "timeout": self.timeout}
        data = json.dumps(request).encode()
        with self._lock:
            answer = self._ask(self._running(), data, self.timeout)
            if "text" not in answer and answer.get("last", True):
                self._stop()
        if "text" in answer:
            return str(answer["text"])
        raise TemplateError(f"the chat template failed: {answer['error']}")

    def close(self) -> None:
        """End the process. A later render starts another."""
        with self._lock:
            self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        # A worker that was started before a fork belongs to the parent.
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self._stop()
        paths = {
            str(Path(spec.origin).parents[1])
            for name in ("jinja2", "markupsafe")
            if (spec := find_spec(name)) and spec.origin
        }
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SCRIPT), str(self.max_memory), *sorted(paths)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is for the parent alone
            )
        except OSError as error:
            raise TemplateError(f"the process that renders chat templates cannot be started: {error}") from error
        self._process, self._owner = process, os.getpid()
        self._end = weakref.finalize(self, _kill, process, self._owner)
        answer = self._ask(process, None, _START_SECONDS)
        if "ready" not in answer:
            self._stop()
            raise TemplateError(f"the process that renders chat templates did not start: {answer['error']}")
        return process

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._end = None

    def _ask(self, process: subprocess.Popen[bytes], data: bytes | None, seconds: float) -> dict[str, Any]:
        """Send a frame (or none) and return the answer; an "error" where the process ended or had to be killed."""
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        answer = None
        try:
            if data is not None:
                process.stdin.write(_LENGTH.pack(len(data)) + data)
                process.stdin.flush()
            header = process.stdout.read(_LENGTH.size)
            # JSON writes a byte of text in six at most.
            if len(header) == _LENGTH.size and (length := _LENGTH.unpack(header)[0]) <= 6 * self.max_output + 65536:
                answer = json.loads(process.stdout.read(length))
        except (OSError, ValueError):
            pass  # the process has gone: said below
        finally:
            timer.cancel()
        if late.is_set():
            return {"error": f"it took more than {seconds:g} s"}
        return answer if isinstance(answer, dict) else {"error": "its process ended unexpectedly"}


def _kill(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was buffered for a process that is gone
                continue
