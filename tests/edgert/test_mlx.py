"""The whole of edgert on MLX: the bundled model's answers, a program's end, the command line."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edgert import LLM, SamplingParams
from tests.edgert.cli.support import process
from tests.support.budget import ROOT, environment

pytest.importorskip("mlx.core", reason="the mlx package is not installed")
pytestmark = pytest.mark.mlx

QUESTIONS = ["What is 12 plus 30?", "Turn on the kitchen light.", "Hello!", "Convert 5 kilometres to miles."]
GREEDY = SamplingParams(max_tokens=40, temperature=0)


@pytest.fixture(scope="module")
def demo() -> Iterator[LLM]:
    with LLM(backend="mlx") as llm:
        yield llm


def ask(llm: LLM, question: str, params: SamplingParams = GREEDY) -> list[int]:
    return llm.chat([{"role": "user", "content": question}], params).token_ids


def test_the_demo_model_gives_the_tokens_of_the_cpu(demo: LLM) -> None:
    with LLM(backend="cpu") as cpu:
        assert [ask(demo, question) for question in QUESTIONS] == [ask(cpu, question) for question in QUESTIONS]


def test_working_ahead_changes_no_token(demo: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = SamplingParams(max_tokens=40, temperature=1.0, seed=5)
    ahead = [ask(demo, question, params) for question in QUESTIONS for params in (GREEDY, sampled)]
    monkeypatch.setattr(demo._engine._worker, "_ahead", None)
    assert [ask(demo, question, params) for question in QUESTIONS for params in (GREEDY, sampled)] == ahead


def test_a_program_that_used_compiled_functions_may_end() -> None:
    """They are kept by thread: the engine's must be let go before the interpreter is."""
    code = (
        "import edgert; llm = edgert.LLM(backend='mlx'); "
        "print(llm.generate('Hello', edgert.SamplingParams(max_tokens=4, temperature=0)).token_ids); llm.close()"
    )
    command = [sys.executable, "-c", code]  # without MLX_DISABLE_COMPILE
    result = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_bench() -> None:
    result = process("bench", "--backend", "mlx", "-p", "8", "-n", "4", "-r", "1", "--profile", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["backend"] == "mlx"
