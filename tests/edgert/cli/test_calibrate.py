"""`edgert calibrate`, as a user types it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edgert.cli.support import ENVIRONMENT, process, run

TEXT = "hello world, and the rest of what there is to say about it: nothing much. " * 12


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


def test_table_and_json(tiny_path: Path, text: str, tmp_path: Path) -> None:
    output = tmp_path / "i.gguf"
    arguments = ("calibrate", str(tiny_path), text, "-o", str(output), "--window", "16")
    shown = run(*arguments, "--windows", "2")
    assert shown.exit_code == 0, shown.output
    assert "2 windows of 16 tokens" in shown.stdout
    for word in ("Tokens per expert", "least", "median", "below 64", "blk.1"):
        assert word in shown.stdout
    assert "warning: " in shown.stderr
    assert "seen fewer than 64 tokens" in shown.stderr
    found = json.loads(run(*arguments, "--json", "--min-tokens-per-expert", "1").stdout)
    assert (found["tokens"], found["threshold"]) == (16 * found["windows"], 1)
    assert [layer["layer"] for layer in found["layers"]] == ["blk.0", "blk.1"]
    assert output.exists()


def test_too_few_tokens_of_an_expert(tiny_path: Path, text: str, tmp_path: Path) -> None:
    output = tmp_path / "i.gguf"
    arguments = ("calibrate", str(tiny_path), text, "-o", str(output), "--window", "16")
    result = process(*arguments, "--min-tokens-per-expert", "100000")
    assert result.returncode == 1
    assert "below 100000" in result.stdout
    last = result.stderr.strip().splitlines()[-1]
    assert "i.gguf: expert " in last
    assert "tokens, fewer than 100000 (and " in last
    assert last.endswith("; calibrate with more text")
    result = process("convert", str(tiny_path), str(tmp_path / "q.gguf"), "--imatrix", str(output), "-t", "q8_0",
                     "--min-tokens-per-expert", "100000")  # fmt: skip
    assert result.returncode == 65
    assert "of blk.0 has seen " in result.stderr
    result = process("convert", str(tiny_path), str(tmp_path / "q.gguf"), "--imatrix", str(output), "-t", "q8_0")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("MODEL", "no such file"), "no such file: cannot be opened: No such file or directory"),
        (("MODEL", "BYTES"), "is no UTF-8 text (byte 0)"),
        (("MODEL", "EMPTY"), "the text is empty"),
        (("MODEL", "SHORT"), "tokens, fewer than a window of 32"),
        (("MODEL", "TEXT", "--window", "5"), "a window of 5 tokens is too small; 8 is the least"),
        (("none.gguf", "TEXT"), "there is no file 'none.gguf'"),
        (("TEXT", "TEXT"), "text.txt"),
    ],
)
def test_bad_input(tiny_path: Path, text: str, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    names = {"MODEL": str(tiny_path), "TEXT": text}
    for name, data in (("BYTES", b"\xff\xfe"), ("EMPTY", b""), ("SHORT", b"hello")):
        (tmp_path / name).write_bytes(data)
        names[name] = str(tmp_path / name)
    window = () if "--window" in arguments else ("--window", "32")
    output = tmp_path / "i.gguf"
    result = process("calibrate", *(names.get(word, word) for word in arguments), *window, "-o", str(output))
    assert result.returncode in (64, 65)
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not output.exists()


def test_a_teacher_behind_a_server_writes_the_text(tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("hello\nworld\n")
    command = [sys.executable, "-m", "edgert", "serve", str(tiny_path), "--backend", "reference", "--port", "0"]
    server = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split(" at ")[1].strip()
        arguments = ("calibrate", str(tiny_path), "--teacher", url, "--prompts", str(tmp_path / "prompts.txt"))
        arguments += ("--write", str(tmp_path / "c.txt"), "--tokens", "80", "--max-tokens", "16")
        first = process(*arguments, "--json")
        assert first.returncode == 0, first.stderr
        found = json.loads(first.stdout)
        assert found["tokens"] >= 80
        again = process(*arguments, "-o", str(tmp_path / "i.gguf"), "--window", "16")
        assert again.returncode == 0, again.stderr
        assert f"{found['texts']} answers of " in again.stdout
        assert f"{found['texts']} of them by an earlier run" in again.stdout
        assert (tmp_path / "i.gguf").exists()
    finally:
        server.terminate()
        server.communicate()
    gone = process(*arguments[:-5], str(tmp_path / "d.jsonl"), "--teacher-model", "m")
    assert gone.returncode == 64
    assert re.fullmatch(rf"edgert: teacher {url}/chat/completions: cannot be reached: .*\n", gone.stderr)
    assert not (tmp_path / "d.jsonl").exists()


def test_an_imatrix_beside_a_calibration_text(tiny_path: Path, text: str, tmp_path: Path) -> None:
    measured = "not for --calibration, which measures importance itself"
    for option, message in (
        (("--imatrix", "i.gguf"), measured),
        (("--min-tokens-per-expert", "5"), measured),
        (("--no-mtp",), "--mtp and --no-mtp are not for --calibration: convert the checkpoint with them first"),
    ):
        result = process("convert", str(tiny_path), str(tmp_path / "q.gguf"), "--calibration", text, *option)
        assert result.returncode == 64
        assert message in result.stderr
        assert not (tmp_path / "q.gguf").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a TEXT, or a --teacher that writes one"),
        (("TEXT", "--tokens", "5"), "--tokens is for a --teacher, who writes the text"),
        (("--teacher", "demo"), "a --teacher needs --prompts to answer and a file to --write"),
        (("TEXT", "--teacher", "demo", "--prompts", "p", "--write", "w"), "a TEXT or a --teacher that writes one, not"),
        (("--teacher", "demo", "--prompts", "p", "--write", "w"), "p: cannot be opened: No such file or directory"),
    ],
)
def test_what_does_not_go_together(
    arguments: tuple[str, ...], message: str, tiny_path: Path, text: str, tmp_path: Path
) -> None:
    result = process("calibrate", str(tiny_path), *(text if word == "TEXT" else word for word in arguments))
    assert result.returncode == 64
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
