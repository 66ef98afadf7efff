"""`edgert evaluate`, as a user types it."""

import json
from pathlib import Path

import pytest

from tests.edgert.cli.support import process, run

TEXT = "hello world, and the rest of what there is to say about it: nothing much. " * 4
QUICK = ("--backend", "reference", "--window", "32")


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


def test_table_and_json(tiny_path: Path, text: str) -> None:
    arguments = ("evaluate", str(tiny_path), text, "--reference", str(tiny_path), *QUICK)
    shown = run(*arguments)
    assert shown.exit_code == 0, shown.output
    for name in ("perplexity", "KL divergence, 99.9 %", "same likeliest token"):
        assert name in shown.stdout
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["comparison"]["divergence"] == {"mean": 0, "error": 0}
    assert found["windows"] * 15 == found["tokens"]
    piped = run("evaluate", str(tiny_path), "-", *QUICK, "--json", "--windows", "2", stdin=TEXT)
    assert json.loads(piped.stdout)["windows"] == 2


def test_a_plot(tiny_path: Path, text: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    picture = tmp_path / "kl.png"
    result = run("evaluate", str(tiny_path), text, "--reference", str(tiny_path), *QUICK, "--plot", str(picture))
    assert result.exit_code == 0, result.output
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("MODEL", "no such file"), "no such file: No such file or directory"),
        (("MODEL", "BYTES"), "is no UTF-8 text (byte 0)"),
        (("MODEL", "SHORT"), "the text has "),
        (("MODEL", "TEXT", "--window", "5"), "a window of 5 tokens is too small; 8 is the least"),
        (("MODEL", "TEXT", "--plot", "x.png"), "--plot shows the divergence from a model: name it by --reference"),
        (("MODEL", "TEXT", "--reference", "MODEL", "--plot", "x.txt"), "--plot: x.txt is none of .png, .svg and .pdf"),
        (("MODEL", "TEXT", "--reference", "MODEL", "--plot", "none/x.png"), "--plot: there is no folder "),
    ],
)
def test_bad_input(tiny_path: Path, text: str, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "short").write_text("hello")
    names = {"MODEL": str(tiny_path), "TEXT": text, "BYTES": str(tmp_path / "bytes"), "SHORT": str(tmp_path / "short")}
    window = () if "--window" in arguments else ("--window", "32")
    result = process("evaluate", *(names.get(word, word) for word in arguments), "--backend", "reference", *window)
    assert result.returncode in (1, 64)
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
