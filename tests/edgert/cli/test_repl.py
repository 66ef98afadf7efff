"""The chat prompt in a real terminal: what is typed, what is shown, what Ctrl-C and Ctrl-D do."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edgert.cli.test_commands import ENVIRONMENT

pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")


class Terminal:
    """A chat in a pseudo-terminal."""

    def __init__(self, model: Path, home: Path) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-m", "edgert", "chat", str(model), "--backend", "reference", "--temperature", "0"]
        environment = {**ENVIRONMENT, "TERM": "xterm", "XDG_STATE_HOME": str(home), "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            [*command, "-n", "12", "--context", "256"], stdin=slave, stdout=slave, stderr=slave, env=environment
        )
        os.close(slave)
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """What has come up to and with the pattern; later calls look at what follows."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self._seen, re.DOTALL)):
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} in {self._seen!r}"
            try:
                self._seen += os.read(self._master, 65536).decode(errors="replace")
            except OSError:
                pytest.fail(f"the terminal closed without {pattern!r}: {self._seen!r}")
        text, self._seen = self._seen[: found.end()], self._seen[found.end() :]
        return text

    def exit_code(self) -> int:
        return self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(tiny_path: Path, tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tiny_path, tmp_path)
    try:
        opened.wait_for(">>>")
        yield opened
    finally:
        opened.close()


def test_a_conversation(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type("hello\r")
    terminal.wait_for(r"\d+ tokens, [\d.]+ tokens/s, first token after [\d.]+ s.*>>>")
    terminal.type("/save " + str(tmp_path / "talk.json") + "\r")
    terminal.wait_for(r"saved to .*>>>")
    terminal.type("/clear\r")
    terminal.wait_for(r"forgotten.*>>>")
    terminal.type("/load " + str(tmp_path / "talk.json") + "\r")
    terminal.wait_for(r"2 messages.*>>>")
    terminal.type("/regen\r")
    terminal.wait_for(r"tokens/s.*>>>")
    terminal.type('"""two\r')
    terminal.wait_for(r"\.\.\.")
    terminal.type('lines"""\r')
    terminal.wait_for(r"tokens/s.*>>>")
    (tmp_path / "note.txt").write_text("read me")
    terminal.type(f"/read '{tmp_path / 'note.txt'}'\r")
    terminal.wait_for(r"tokens/s.*>>>")
    terminal.type("/bye\r")
    assert terminal.exit_code() == 0
    assert "hello" in (tmp_path / "edgert" / "history").read_text()


def test_settings_and_mistakes(terminal: Terminal, tmp_path: Path) -> None:
    for typed, shown in (
        ("/help", "forget the conversation"),
        ("/?", "forget the conversation"),
        ("/set top_p 0.5", ">>>"),
        ("/set system Be brief.", ">>>"),
        ("/show", r"system = Be brief\..*top_p = 0\.5"),
        ("/set top_p 7", "top_p must be a number from 0 to 1, not 7"),
        ("/set warmth 1", "unknown setting 'warmth'; there are: system, "),
        ("/frobnicate", "unknown command /frobnicate; /help lists them"),
        ("/load", "this command needs one file name"),
        (f"/load {tmp_path}/none.json", "No such file"),
        ("/read ~nobody-here/none.txt", "~nobody-here/none.txt: No such file"),
        ("/regen", "there is no answer to give again"),
        ("x" * 600, "the context holds 256; /clear begins anew"),
    ):
        terminal.type(typed + "\r")
        terminal.wait_for(shown if shown == ">>>" else f"{shown}.*>>>")
    terminal.type("\x04")
    assert terminal.exit_code() == 0


def test_interrupts(terminal: Terminal) -> None:
    terminal.type("/set max_tokens 200\r")
    terminal.wait_for(">>>")
    terminal.type("hello\r")
    time.sleep(0.15)
    terminal.type("\x03")
    terminal.wait_for(r"(\(stopped\)|Ctrl-C again|tokens/s).*>>>")
    terminal.type("\x03")
    terminal.wait_for(r"Ctrl-C again \(or Ctrl-D\) to leave.*>>>")
    terminal.type("\x03")
    assert terminal.exit_code() == 0
