import subprocess
import sys

import pytest

import edgert

_PROBE = """
import sys
import edgert
heavy = {"numpy", "numba", "llvmlite", "tokenizers", "jinja2", "asyncio", "edgert_quant", "edgert_runtimes"}
print(sorted(heavy & set(sys.modules)))
print(edgert.SamplingParams(seed=1).seed, sorted((heavy - {"asyncio"}) & set(sys.modules)))
"""


def test_import_is_light() -> None:
    environment = {"PYTHONPATH": ":".join(sys.path)}
    told = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["[]", "1 []"]


def test_every_name_is_there() -> None:
    for name in edgert.__all__:
        assert getattr(edgert, name).__name__ == name
        assert name in dir(edgert)
    assert issubclass(edgert.QueueFullError, edgert.EdgertError)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'edgert' has no attribute 'nothing'"):
        edgert.nothing  # noqa: B018
