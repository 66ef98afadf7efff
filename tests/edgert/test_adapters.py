"""Adapters of a model: what PEFT computes, beside requests without, and never each other's cache."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import BackendError, RequestError
from edgert_quant.convert import convert
from edgert_runtimes.registry import get_backend

from edgert import LLM, SamplingParams
from tests.support.golden import FOLDER as GOLDEN

ADAPTERS = Path(__file__).parents[1] / "quant/adapters"
GREEDY = SamplingParams(max_tokens=12, temperature=0.0)


@pytest.fixture(scope="module", params=["llama", "qwen3moe"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["cpu", "reference", pytest.param("mlx", marks=pytest.mark.mlx)])
def llm(request: pytest.FixtureRequest, name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """A golden model with its adapter, and with the same at half its strength."""
    path = tmp_path_factory.mktemp("adapted") / "model.gguf"
    convert(GOLDEN / name, path, type="f32")
    sources = {"whole": ADAPTERS / name, "half": (str(ADAPTERS / name), 0.5)}
    try:
        get_backend(request.param)
    except BackendError as error:
        pytest.skip(str(error))
    with LLM(path, backend=request.param, context=64, threads=2, adapters=sources) as made:
        yield made


def test_logits_are_those_of_peft(llm: LLM, name: str) -> None:
    with np.load(ADAPTERS / name / "logits.npz") as golden:
        for tokens, wanted in zip(golden["tokens"].tolist(), golden["logits"], strict=True):
            found = llm.adapted("whole").logits(tokens)
            assert np.square(found - wanted).sum() < 1e-9 * np.square(wanted).sum()
            assert np.abs(llm.adapted("half").logits(tokens) - wanted).max() > 0.1
    with np.load(GOLDEN / name / "logits.npz") as golden:
        found = llm.logits(golden["tokens"][0].tolist())
        assert np.square(found - golden["logits"][0]).sum() < 1e-9 * np.square(golden["logits"][0]).sum()


def test_answers_are_the_same_in_company(llm: LLM) -> None:
    models = [llm, llm.adapted("whole"), llm.adapted("half")] * 3
    prompts = [[1 + index // 3, 2, 3, 4, 5] for index in range(len(models))]
    alone = [model.generate(prompt, GREEDY).token_ids for model, prompt in zip(models, prompts, strict=True)]
    with ThreadPoolExecutor(len(models)) as pool:
        together = list(pool.map(lambda model, prompt: model.generate(prompt, GREEDY).token_ids, models, prompts))
    assert together == alone
    assert alone[0] != alone[1]


def test_caches_are_not_shared(llm: LLM) -> None:
    prompt = [(7 * i) % 90 + 1 for i in range(40)]
    adapted = llm.adapted("whole")
    cached = [model.generate(prompt, GREEDY).usage.cached_tokens for model in (llm, adapted, llm, adapted)]
    assert cached[:2] == [0, 0]
    assert min(cached[2:]) >= 32
    assert llm.adapted("half").generate(prompt, GREEDY).usage.cached_tokens == 0


def test_names(llm: LLM, name: str) -> None:
    assert llm.adapters == ("whole", "half")
    assert llm.adapted("whole").name == f"{llm.name}:whole"
    with pytest.raises(RequestError, match="has no adapter 'third'; it has whole, half"):
        llm.adapted("third")
    with pytest.raises(RequestError, match=r"whole' has no adapter 'half'; it has none"):
        llm.adapted("whole").adapted("half")
    with pytest.raises(RequestError, match="an adapter cannot be called 'a:b'"):
        LLM(llm.path, backend="reference", adapters={"a:b": ADAPTERS / name})
    with pytest.raises(RequestError, match=r"adapters must be files by name, not \['a'\]"):
        LLM(llm.path, backend="reference", adapters=["a"])  # type: ignore[arg-type]
    embedded = llm.adapted("whole").embed([[1, 2, 3]])
    assert not np.allclose(embedded, llm.embed([[1, 2, 3]]))
