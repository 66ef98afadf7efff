"""The process that does a confined job. Run as a script; it imports the standard library only, and then the job.

What templates and grammars ask for may use up time and memory in one call of C, which nothing inside a process can
interrupt. So it runs here: memory and time are limited by the operating system, time on the clock by the parent, which
kills this process.
Frames on both pipes are a four-byte length (big-endian) and JSON in UTF-8.

A job is a script with two functions: `prepare()` gives what answers requests (a dict to a dict, both JSON), and
`reason(error)` says for people why it raised.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import struct
import sys
from typing import Any, BinaryIO

_LENGTH = struct.Struct(">I")


def _limit_memory(limit: int) -> None:
    """Cap this process's memory at `limit` bytes, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, value in (("RLIMIT_AS", limit), ("RLIMIT_DATA", limit), ("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0)):
        kind = getattr(resource, name, None)
        try:
            if kind is not None:
                resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):  # macOS refuses some of them
            continue


def _set_timers(own: float, clock: float) -> None:
    """Seconds of this process's time, and on the clock, after which a signal ends it; 0 for none."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_PROF, own)
        signal.setitimer(signal.ITIMER_REAL, clock)


def _send(pipe: BinaryIO, value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def main(script: str, memory: int, paths: list[str]) -> None:
    """Answer requests from stdin until it closes."""
    sys.path[:0] = paths
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write between the frames
    if hasattr(signal, "SIGPROF"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # whoever started the parent may have had it ignored
    job = runpy.run_path(script)
    handle, reason = job["prepare"](), job["reason"]
    _limit_memory(memory)
    _send(answers, {"ready": True})
    while len(header := requests.read(_LENGTH.size)) == _LENGTH.size:
        request = json.loads(requests.read(_LENGTH.unpack(header)[0]))
        # SIGPROF ends this process when its time is up. On the clock the parent does so, and the alarm where the parent
        # itself has been killed.
        _set_timers(request["timeout"], request["patience"] * request["timeout"] + 1)
        try:
            answer = handle(request)
        except BaseException as error:
            # After a lack of memory the heap may be full of holes: the parent starts another process.
            lack = isinstance(error, MemoryError)
            answer = {"error": "it needs more memory than is allowed" if lack else reason(error), "last": lack}
        _set_timers(0, 0)
        _send(answers, answer)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
