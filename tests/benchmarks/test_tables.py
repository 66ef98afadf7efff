"""Tables and the roofline, from results as `benchmarks.compare` writes them."""

import json
from pathlib import Path

import pytest

from benchmarks import tables
from tests.benchmarks.conftest import entry


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    old = entry(edgert=1.0, when="2029-01-01T00:00:00+00:00")
    new = [entry(edgert=8.0, llama_cpp=4.0), entry(edgert=9.0, llama_cpp=4.0, ik_llama_cpp=6.0, threads=2)]
    other = entry("other.gguf", edgert=3.0)
    path.write_text(json.dumps([old, *new, other]))
    return path


def test_tables(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.main([str(results)])
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert text.count("**model.gguf**") == text.count("**other.gguf**") == 1
    assert "with threads=2 it reads 10.0 GB/s and makes 100 GOPS of int8 products" in text
    header = "| threads | test | edgert | llama.cpp | ik_llama.cpp | times llama.cpp | times ik_llama.cpp |"
    assert any(line.startswith(header) for line in lines)
    assert "| 1 | tg4 | 8.00 | 4.00 | – | 2.00 | – | 0.80 of read bandwidth |" in lines
    assert "| 2 | tg4 | 9.00 | 4.00 | 6.00 | 2.25 | 1.50 | 0.90 of read bandwidth |" in lines
    assert "| 1 | pp8 | 8.00 | – | – | – | – | 1.00 of int8 peak |" in lines
    assert "| 1 | memory | 1.00 GiB | 1.00 GiB | – | – | – |  |" in lines
    assert "- llama.cpp, pp8: it broke" in lines


def test_figures() -> None:
    assert [tables.figure(x, "tokens/s") for x in (0.1234, 1.234, 12.34, 123.4)] == ["0.123", "1.23", "12.3", "123"]
    assert (tables.figure(0.0123, "s"), tables.figure(1.5, "s")) == ("12.3 ms", "1.50 s")


def test_a_roofline_is_drawn(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib (dependency group bench) is not installed")
    from benchmarks import roofline

    output = tmp_path / "roofline.png"
    roofline.main([str(results), "--output", str(output)])
    assert output.read_bytes().startswith(b"\x89PNG")
    found = roofline.points(entry(edgert=8.0, llama_cpp=4.0))
    assert found[0] == {"test": "tg4", "intensity": 2.0, "gops": {"edgert": 16.0, "llama.cpp": 8.0}}
    assert found[1] == {"test": "pp8", "intensity": 100.0, "gops": {"edgert": 100.0}}
    figure = roofline.draw(tables.latest(tables.read([results])))
    assert len(figure.axes) == 4  # two models, two numbers of threads
    with pytest.raises(SystemExit):
        roofline.main([str(results), "--output", str(output), "--model", "none.gguf"])
