"""How many threads are used by default."""

from pathlib import Path

import pytest
from edgert_runtimes.cpu import cores


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Eight hardware threads on four cores."""
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(cores, "CPUS", tmp_path)
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path


def test_hardware_threads_of_a_core_count_once(machine: Path) -> None:
    assert cores.core_count() == 4


def test_affinity(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {1, 5, 6}, raising=False)
    assert cores.core_count() == 2


@pytest.mark.parametrize(
    ("text", "expected"), [("max 100000", 4), ("150000 100000", 2), ("50000 100000", 1), ("junk", 4)]
)
def test_quota(machine: Path, text: str, expected: int) -> None:
    (machine / "cpu.max").write_text(text)
    assert cores.core_count() == expected


def test_without_topology_every_cpu_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "CPUS", machine / "missing")
    assert cores.core_count() == 8
