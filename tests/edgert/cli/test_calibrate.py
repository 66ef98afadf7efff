"""`edgert calibrate`, as a user types it."""

import json
from pathlib import Path

import pytest

from tests.edgert.cli.support import process, run

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
