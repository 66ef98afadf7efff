"""`edgert serve` as a process: where it listens, what it logs, and what SIGTERM does."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

TLS = Path(__file__).with_name("tls")


@contextmanager
def serving(
    path: Path, *options: str, program: Sequence[str] = ("-m", "edgert"), **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The process, the model's name and the address that it prints."""
    command = [sys.executable, *program, "serve", str(path), "--backend", "reference", "--port", "0", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, **environment}, **pipes) as server:  # type: ignore[call-overload]
        try:
            assert server.stdout is not None
            name, url = server.stdout.readline().strip().split(" at ")
            yield server, name, url
        finally:
            server.kill()


def test_sigterm_drains(tiny_path: Path) -> None:
    """The answers under way are finished, and then the process ends."""
    with serving(tiny_path, EDGERT_CONTEXT="1024") as (server, name, url):
        body = {"model": name, "prompt": "hello", "max_tokens": 100, "stream": True, "logit_bias": {"60": 100}}
        with httpx.stream("POST", f"{url}/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
            server.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert '"finish_reason":"length"' in rest[-2]
        assert server.wait(30) == 0


HURRIED = """
from edgert.server import run as serving
serving._DRAIN_SECONDS = 1
from edgert.cli.main import run
run()
"""


def test_sigterm_does_not_wait_for_ever(tiny_path: Path) -> None:
    """An answer without an end is ended after so many seconds, and told so; the process ends in order."""
    with serving(tiny_path, "--overflow", "sliding", program=("-c", HURRIED)) as (server, name, url):
        body = {"model": name, "prompt": "hello", "max_tokens": 1_000_000, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{url}/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
            server.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "cancelled"
        assert server.wait(30) == 0


def test_tls_with_keys_of_a_file(tiny_path: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("one\ntwo\n")
    options = ["--tls-cert", str(TLS / "cert.pem"), "--tls-key", str(TLS / "key.pem"), "--api-key-file", str(keys)]
    with serving(tiny_path, *options, EDGERT_LOG_FORMAT="json") as (server, _, url):
        assert url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
        with httpx.Client(verify=context) as client:
            assert client.get(f"{url}/models").status_code == 401
            assert client.get(f"{url}/models", headers={"X-API-Key": "two"}).status_code == 200
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=30)
    assert server.returncode == 0
    told = [json.loads(line) for line in log.splitlines()]
    assert [line["status"] for line in told if "status" in line] == [401, 200]


def test_a_unix_socket(tiny_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "edgert.sock"
    with serving(tiny_path, "--socket", str(path), "--log-level", "warning") as (server, name, url):
        assert url == f"unix:{path}"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://any.name/v1/models").json()["data"][0]["id"] == name
        server.send_signal(signal.SIGINT)
        _, log = server.communicate(timeout=30)
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # in what shells start in the background
    assert (log, server.returncode) == ("", 0 if ignored else 130)
    assert not path.exists()


def falls_silent(listener: socket.socket) -> bool:
    """Whether nothing more comes, after a few that were sent before."""
    for _ in range(20):
        try:
            listener.recv(99)
        except TimeoutError:
            return True
    return False


HANGING = """
import time
from edgert_runtimes.reference.backend import ReferenceSession
ReferenceSession.step = lambda *rest, **named: time.sleep(1000)
from edgert.cli.main import run
run()
"""


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd's socket is a Unix one")
def test_systemd_is_told_while_all_is_well(tiny_path: Path, tmp_path: Path) -> None:
    """A model that hangs for ever: requests are told so, systemd is told nothing more, and SIGTERM still ends it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        options = ("--step-timeout", "0.5", "--log-level", "error")
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        with serving(tiny_path, *options, program=("-c", HANGING), **told) as (server, name, url):
            assert [systemd.recv(99) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            answer = httpx.post(f"{url}/completions", json={"model": name, "prompt": "hello"}, timeout=60)
            assert answer.status_code == 503
            systemd.settimeout(1.0)
            assert falls_silent(systemd)
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 70
            assert systemd.recv(99) == b"STOPPING=1"
