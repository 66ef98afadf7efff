"""Models with recurrent states through the embedded API: whatever shares the engine, answers are as alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from edgert_quant.convert import convert

from edgert import LLM, SamplingParams
from edgert.measure import Phase, Trial, measure
from tests.support.golden import FOLDER

NAMES = ["lfm2", "qwen3-next"]
PROMPTS = [[5, 9, 1, 44, 3], list(range(20, 60)), [7]]
PARAMS = SamplingParams(temperature=0.0, max_tokens=10, ignore_eos=True)


@pytest.fixture(scope="module", params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recurrent") / f"{request.param}.gguf"
    convert(FOLDER / request.param, path, type="f32")
    return path


@pytest.fixture(scope="module")
def llm(path: Path, backend_name: str) -> Iterator[LLM]:
    with LLM(path, backend=backend_name, threads=2, sequences=3, rows=32) as llm:
        yield llm


def greedy(llm: LLM, prompt: list[int]) -> list[int]:
    """By evaluations of the whole text, one for each token."""
    tokens = list(prompt)
    for _ in range(10):
        tokens.append(int(llm.logits(tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def test_answers_alone_together_and_again(llm: LLM) -> None:
    wanted = [greedy(llm, prompt) for prompt in PROMPTS]
    assert [llm.generate(prompt, PARAMS).token_ids for prompt in PROMPTS] == wanted
    again = llm.generate([*PROMPTS, *PROMPTS], PARAMS)
    assert [answer.token_ids for answer in again] == wanted * 2
    assert [answer.usage.cached_tokens for answer in again[:3]] == [0, 32, 0]  # whole blocks, where states are kept
    longer = [*PROMPTS[1], *wanted[1], 2]
    answer = llm.generate(longer, PARAMS)
    assert (answer.token_ids, answer.usage.cached_tokens) == (greedy(llm, longer), 48)


def test_measuring_disturbs_nobody(llm: LLM) -> None:
    before = llm.generate(PROMPTS[1], PARAMS).token_ids
    measure(llm, Trial(phase=Phase.DECODE, tokens=3, depth=5, batch=2), repeat=1)
    assert llm.generate(PROMPTS[1], PARAMS).token_ids == before


def test_states_count_as_memory(path: Path, backend_name: str) -> None:
    with LLM(path, backend=backend_name, sequences=1) as few, LLM(path, backend=backend_name, sequences=5) as many:
        slot = 4 * 2 * 2 * 64  # of two layers the last two rows
        if "qwen" in path.name:
            slot = 4 * 2 * (3 * 128 + 4 * 16 * 16)  # the last three rows, and a matrix for each head
        assert many.limits.states - few.limits.states == 8
        blocks = 16 * 2 * 2 * 16 * 4 * (many.limits.blocks - few.limits.blocks)
        assert many.report.cache_bytes - few.report.cache_bytes == pytest.approx(8 * slot + blocks, abs=256)
