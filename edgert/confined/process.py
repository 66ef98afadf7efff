"""The parent's side of a confined process: starts it, talks to it, and kills it when its time is up."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgert_models.errors import EdgertError

_LENGTH = struct.Struct(">I")
_START_SECONDS = 30.0
_OUT_OF_TIME = -getattr(signal, "SIGPROF", 0)
PATIENCE = 5 if _OUT_OF_TIME else 1
_CHILD = Path(__file__).with_name("child.py")


class ConfinedProcess:
    """One process for one kind of `job`, started when it is first asked and again whenever it has ended. Safe to use
    from threads.

    `job` is a script as `child.py` wants it, `modules` are the packages that it imports beside the standard library.
    `does` completes "the process that …" for errors of the type `error`. Limits: `timeout` is the process's time for
    one answer in seconds, of which a busy machine may make `PATIENCE` times as many on the clock (where a process
    cannot limit its own time, on Windows, the clock decides); `max_output` (of the answer's text) and `max_memory` are
    bytes.
    """

    def __init__(
        self,
        job: Path,
        modules: Sequence[str],
        *,
        does: str,
        error: type[EdgertError],
        timeout: float,
        max_output: int,
        max_memory: int,
    ) -> None:
        self.timeout, self.max_output, self.max_memory = timeout, max_output, max_memory
        self._job, self._modules, self._does, self._error = job, tuple(modules), does, error
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._end: weakref.finalize[Any, Any] | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The job's answer to `request` (JSON); an "error" says why there is none. `error` if no process starts."""
        limits = {"max_output": self.max_output, "timeout": self.timeout, "patience": PATIENCE}
        data = json.dumps({**request, **limits}).encode()
        with self._lock:
            answer = self._ask(self._running(), data, PATIENCE * self.timeout)
            if "error" in answer and answer.get("last", True):
                self._stop()
        return answer

    def close(self) -> None:
        """End the process. To ask again starts another."""
        with self._lock:
            self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        # A process that was started before a fork belongs to the parent.
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self._stop()
        paths = {
            str(Path(spec.origin).parents[1])
            for name in self._modules
            if (spec := find_spec(name)) is not None and spec.origin
        }
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_CHILD), str(self._job), str(self.max_memory), *sorted(paths)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is for the parent alone
            )
        except OSError as error:
            raise self._error(f"the process that {self._does} cannot be started: {error}") from error
        self._process, self._owner = process, os.getpid()
        self._end = weakref.finalize(self, _kill, process, self._owner)
        answer = self._ask(process, None, _START_SECONDS)
        if "ready" not in answer:
            self._stop()
            raise self._error(f"the process that {self._does} did not start: {answer['error']}")
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
        except BaseException:  # an interrupt: what it answers now would be taken for the answer to the next request
            self._stop()
            raise
        finally:
            timer.cancel()
        if isinstance(answer, dict) and not late.is_set():
            return answer
        process.kill()  # if it has not ended
        if late.is_set() or (_OUT_OF_TIME and process.wait() == _OUT_OF_TIME):
            return {"error": f"it took more than {self.timeout if data is not None else seconds:g} s"}
        return {"error": "its process ended unexpectedly"}


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
