"""Perplexity beside a program that speaks like llama.cpp's."""

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import perplexity

TEXT = "The water boils at one hundred degrees, and the ice melts at zero. " * 12


def program(folder: Path, answer: str) -> Path:
    path = folder / "llama-perplexity"
    path.write_text(f"#!/bin/sh\necho \"$@\" > {folder}/arguments\necho '{answer}' >&2\n")
    path.chmod(0o755)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["perplexity", *map(str, arguments)])
    perplexity.main()


def test_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text"
    text.write_text(TEXT)
    other = program(tmp_path, "Final estimate: PPL = 8.0000 +/- 0.50000")
    run(monkeypatch, "--text", text, "--llama-perplexity", other, "--window", 32, "--windows", 3)
    found = json.loads(capsys.readouterr().out)
    assert found["windows"] == 3
    assert found["ratio"] == pytest.approx(found["perplexity"] / 8)
    assert 1 < found["perplexity"] < 2000
    assert 0 < found["against_reference"]["mean_kl_divergence"] < 0.05
    assert re.search(r"-c 32 -b 32 --chunks 3", (tmp_path / "arguments").read_text())


def test_a_program_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text"
    text.write_text(TEXT)
    with pytest.raises(SystemExit, match="llama-perplexity told no perplexity"):
        run(
            monkeypatch, "--text", text, "--llama-perplexity", program(tmp_path, "done"), "--window", 32, "--windows", 1
        )
