"""`edgert bench`: what it measures, and how it says so."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from edgert_models.errors import BackendError
from edgert_runtimes.cpu import peaks
from edgert_runtimes.cpu.peaks import Peaks
from edgert_runtimes.registry import get_backend

from tests.edgert.cli.support import process, run

SHORT = ("-p", "8", "-n", "4", "-r", "2")
ON_REFERENCE = (*SHORT, "--backend", "reference")


def measured(*arguments: str) -> dict[str, Any]:
    result = run("bench", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def names(tests: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(test["test"], test["threads"]) for test in tests]


def test_the_promised_fields(tiny_path: Path) -> None:
    found = measured(str(tiny_path), *ON_REFERENCE)
    assert found["model"] == tiny_path.name
    assert found["backend"] == "reference"
    assert isinstance(found["threads"], int)
    for key in (
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "time_to_first_token_seconds",
        "peak_memory_bytes",
        "weight_bytes_per_token",
    ):
        assert found[key] > 0, key
    assert [name for name, _ in names(found["tests"])] == ["pp8", "tg4", "ttft8", "llm-tg4"]
    for test in found["tests"]:
        assert len(test["runs"]) == len(test["seconds"]) == 2
        assert min(test["runs"]) == test["min"] <= test["median"] <= test["max"] == max(test["runs"])
        work = test["tokens"] * test["batch"]
        assert test["runs"] == pytest.approx([work / seconds for seconds in test["seconds"]])
    prefill, decode, first, answer = found["tests"]
    assert found["prefill_tokens_per_second"] == prefill["median"]
    assert found["decode_tokens_per_second"] == decode["median"]
    assert found["time_to_first_token_seconds"] == pytest.approx(sum(first["seconds"]) / 2)
    per_token = [sum(test["seconds"]) / 2 / 4 for test in (answer, decode)]
    assert found["llm_overhead_seconds_per_token"] == pytest.approx(per_token[0] - per_token[1])


def test_many_at_once(tiny_path: Path) -> None:
    arguments = ("-p", "4,8", "-p", "6", "-n", "3", "-d", "0,16", "--batch", "1,2", "-r", "1", "--only", "pp,tg")
    found = measured(str(tiny_path), *arguments, "--backend", "reference")
    assert [name for name, _ in names(found["tests"])] == [
        *("pp4", "pp8", "pp6", "pp4@d16", "pp8@d16", "pp6@d16"),
        *("tg3", "tg3×2", "tg3@d16", "tg3@d16×2"),
    ]
    assert found["time_to_first_token_seconds"] is None


def cpu_or_skip() -> None:
    try:
        get_backend("cpu")
    except BackendError as error:
        pytest.skip(str(error))


def test_every_number_of_threads(tiny_path: Path) -> None:
    cpu_or_skip()
    found = measured(str(tiny_path), *SHORT, "-t", "1,2", "--only", "tg")
    assert names(found["tests"]) == [("tg4", 1), ("tg4", 2)]
    assert found["threads"] == 1
    assert found["decode_tokens_per_second"] == found["tests"][0]["median"]


def test_the_table(tiny_path: Path) -> None:
    result = process("bench", str(tiny_path), *ON_REFERENCE, "--batch", "1,3")
    assert result.returncode == 0, result.stderr
    assert "tiny.gguf on reference" in result.stdout
    assert "scheduling, sampling and text: " in result.stdout
    for name in ("pp8", "tg4", "tg4×3", "ttft8", "llm-tg4", "llm-tg4×3"):
        assert f"│ {name} " in result.stdout
    for column in ("test", "threads", "tokens/s", "min – max", "time"):
        assert column in result.stdout


@pytest.fixture
def quick_peaks(monkeypatch: pytest.MonkeyPatch) -> Peaks:
    found = Peaks(1, 10e9, 100e9, 50e9)
    monkeypatch.setattr(peaks, "measure_peaks", lambda threads: found)
    return found


def test_a_profile_adds_up(tiny_path: Path, quick_peaks: Peaks) -> None:
    cpu_or_skip()
    found = measured(str(tiny_path), *SHORT, "-t", "1", "--only", "pp,tg", "--profile")
    assert [item["test"] for item in found["profile"]] == ["pp8", "tg4"]
    assert found["peaks"][0]["read_bytes_per_second"] == quick_peaks.read_bytes
    for item in found["profile"]:
        accounted = sum(op["seconds"] for op in item["ops"])
        assert item["unaccounted_seconds"] == pytest.approx(item["seconds"] - accounted)
        assert 0 < accounted < item["seconds"]
        assert any(op["bytes"] > 0 and op["operations"] > 0 for op in item["ops"])
    steps = [max(op["calls"] for op in item["ops"] if "output" in op["op"]) for item in found["profile"]]
    assert steps[1] == 4 * steps[0]  # one step for the prompt, one for every token


def test_the_table_of_a_profile(tiny_path: Path, quick_peaks: Peaks, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_or_skip()
    monkeypatch.setattr("edgert.cli.console.out.width", 160)
    result = run("bench", str(tiny_path), *SHORT, "-t", "1", "--only", "tg", "--profile")
    assert result.exit_code == 0, result.output
    assert "this machine with threads=1: 10.0 GB/s read from memory, 100 GOPS in int8 products" in result.stdout
    assert "tg4, threads=1" in result.stdout
    for word in (
        "calls",
        "share",
        "of read",
        "of int8",
        "moe.inward ffn_gate_exps",
        "outside of ops (Python)",
        "total",
    ):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", "0"), "--prompt-tokens: '0' is not a whole number from 1 on"),
        (("-n", "8,x"), "--decode-tokens: 'x' is not a whole number from 1 on"),
        (("-d", "-1"), "--depth: '-1' is not a whole number from 0 on"),
        (("--batch", "0"), "--batch: '0' is not a whole number from 1 on"),
        (("-t", "0"), "--threads: '0' is not a whole number from 1 on"),
        (("--only", "pp,xx"), "--only: 'xx' is not one of pp, tg, ttft, llm-tg"),
        (
            ("-p", "8", "-d", "300"),
            "llm-tg128@d300 needs a context of 430: the model was trained for 256; --context 430 measures all the same",
        ),
        (("-p", "100", "-n", "8", "--context", "64"), "ttft100 needs a context of 101: --context is 64"),
        (("-p", "8", "-n", "8", "--batch", "600"), "a step needs a row for each of the 600 sequences"),
        (("-p", "8", "-n", "8", "--kv-type", "f12"), "kv_type must be"),
        (("-p", "2", "-n", "1", "--profile"), "backend 'reference' cannot tell where its time goes"),
    ],
)
def test_errors(arguments: tuple[str, ...], message: str, tiny_path: Path) -> None:
    result = process("bench", str(tiny_path), "--backend", "reference", "-r", "1", *arguments)
    assert result.returncode == 64, result.stderr
    assert message in result.stderr
    assert result.stderr.startswith("edgert: ")
    assert result.stderr.count("\n") == 1
