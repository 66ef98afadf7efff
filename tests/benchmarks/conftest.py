"""Fake peers, and results that were measured with them."""

import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine
from tests.edgert.tiny_gguf import write_tiny

SOURCE = Path(__file__).with_name("fake_peer.py")
NAMES = ("llama-bench", "llama-batched-bench", "llama-completion", "llama-cli", "broken")
PEAKS = {"read_gb_per_second": 10.0, "int8_gops_per_second": 100.0, "float32_gflops_per_second": 50.0}


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def peers(tmp_path: Path) -> Path:
    """A folder `llama` and a folder `ik` of programs."""
    for folder in ("llama", "ik"):
        (tmp_path / folder).mkdir()
        for name in NAMES:
            path = tmp_path / folder / name
            path.write_text(f"#!{sys.executable}\n{SOURCE.read_text()}")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without measuring the machine."""
    monkeypatch.setattr(machine, "peaks", lambda threads: dict(PEAKS))


def entry(model: str = "model.gguf", threads: int = 1, when: str = "2030-01-02T03:04:05+00:00", **rates: float) -> Any:
    """An entry with two tests, and rates of programs (names with _ for .) in the first."""
    programs = {name.replace("_cpp", ".cpp"): rate for name, rate in rates.items()}
    values = {name: {"median": rate, "runs": [rate], "flags": "", "variants": {}} for name, rate in programs.items()}
    ours = rates.get("edgert", 0.0)
    ratios = {name: {"median": ours / rate, "runs": []} for name, rate in programs.items() if name != "edgert"}
    decode = {"test": "tg4", "unit": "tokens/s", "tokens": 4, "bytes": 4e9, "operations": 8e9, "programs": values}
    prefill: dict[str, Any] = {
        "test": "pp8",
        "unit": "tokens/s",
        "tokens": 8,
        "bytes": 1e9,
        "operations": 1e11,
        "programs": dict(values),
    }
    if "llama.cpp" in programs:
        prefill["programs"]["llama.cpp"] = {"error": "it broke"}
    held = {name: {**value, "median": 2**30} for name, value in values.items()}
    memory = {"test": "memory", "unit": "bytes", "programs": held}
    return {
        "when": when,
        "commit": "abc",
        "machine": {"cpu": "CPU", "cpus": 2, "instruction_set": "avx2"},
        "model": {"name": model, "bytes": 5_000_000_000, "head_bytes": 10, "head_sha256": "0123456789abcdef"},
        "threads": threads,
        "rounds": 3,
        "limits": PEAKS,
        "programs": dict.fromkeys(programs, "1.0"),
        "tests": [{**decode, "ratios": ratios}, {**prefill, "ratios": {}}, {**memory, "ratios": {}}],
    }
