import subprocess
import sys

import pytest

import edgert

_PROBE = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
import edgert
seconds = time.perf_counter() - start
heavy = {"numpy", "numba", "llvmlite", "tokenizers", "jinja2", "asyncio", "edgert_quant", "edgert_runtimes"}
print(seconds, sorted(heavy & set(sys.modules)))
print(edgert.SamplingParams(seed=1).seed, sorted((heavy - {"asyncio"}) & set(sys.modules)))
"""


def test_import_is_quick_and_light() -> None:
    environment = {"PYTHONPATH": ":".join(sys.path)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(3)
    ]
    first, second = runs[0].splitlines()
    assert first.endswith(" []")
    assert second == "1 []"
    assert min(float(run.split()[0]) for run in runs) < 0.05


def test_every_name_is_there() -> None:
    for name in edgert.__all__:
        assert getattr(edgert, name).__name__ == name
        assert name in dir(edgert)
    assert issubclass(edgert.QueueFullError, edgert.EdgertError)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'edgert' has no attribute 'nothing'"):
        edgert.nothing  # noqa: B018
