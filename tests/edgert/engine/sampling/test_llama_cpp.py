"""The steps beside llama.cpp's own, where its library is to be had."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgert_quant.gguf import GgufFile

from edgert.engine.params import SamplingParams
from edgert.engine.sampling import Breakers
from edgert.engine.sampling.base import Candidates, Step
from edgert.engine.sampling.dry import Dry
from edgert.engine.sampling.infill import Infill
from edgert.engine.sampling.penalties import Penalties
from edgert.engine.sampling.picks import Mirostat, Mirostat1
from edgert.engine.sampling.temperature import DynamicTemperature, Temperature
from edgert.engine.sampling.truncation import MinP, TopK, TopNSigma, TopP, TypicalP, Xtc
from edgert.text import Tokenizer
from tests.edgert.engine.sampling.support import candidates, softmax64
from tests.support.llama_cpp import library

DEMO = Path(__file__).parents[4] / "edgert/demo/model.gguf"
ROWS = [
    np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)
    for seed, (spread, size) in enumerate([(0.1, 40), (1.0, 300), (3.0, 300), (3.0, 3000), (8.0, 3000)])
]
TEXT = """Anna: "Where is the red ball?"
Ben: "The red ball is in the garden, under the old tree."
Anna: "Where is the red box?"
Ben: "The red box is in the garden, under the old tree, and the red ball is in the garden, under the"""


def theirs(api: Any, sampler: Any, logits: np.ndarray, tokens: list[int] = []) -> Candidates:  # noqa: B006
    """What is left after one of llama.cpp's samplers that has seen `tokens`; the sampler is freed."""
    data = (api.llama_token_data * logits.size)()
    for token, logit in enumerate(logits.tolist()):
        data[token].id, data[token].logit = token, logit
    array = api.llama_token_data_array(data=data, size=logits.size, selected=-1, sorted=False)
    for token in tokens:
        api.llama_sampler_accept(sampler, token)
    api.llama_sampler_apply(sampler, ctypes.byref(array))
    left = sorted((array.data[i].id, array.data[i].logit) for i in range(array.size))
    api.llama_sampler_free(sampler)
    possible = [(token, logit) for token, logit in left if logit > -np.inf]
    return Candidates(np.array([t for t, _ in possible]), np.array([v for _, v in possible], dtype=np.float32))


CUTS: list[tuple[str, tuple[float, ...], Step]] = [
    ("top_k", (1,), TopK(1)),
    ("top_k", (40,), TopK(40)),
    ("top_p", (0.5, 0), TopP(0.5)),
    ("top_p", (0.95, 0), TopP(0.95)),
    ("min_p", (0.05, 0), MinP(0.05)),
    ("min_p", (0.5, 0), MinP(0.5)),
    ("typical", (0.3, 0), TypicalP(0.3)),
    ("typical", (0.9, 0), TypicalP(0.9)),
    ("top_n_sigma", (1.0,), TopNSigma(1.0)),
    ("top_n_sigma", (2.5,), TopNSigma(2.5)),
    ("xtc", (1.0, 0.1, 0, 1), Xtc(1.0, 0.1, seed=1)),
    ("xtc", (1.0, 0.003, 0, 1), Xtc(1.0, 0.003, seed=1)),
    ("xtc", (0.0, 0.1, 0, 1), Xtc(0.0, 0.1, seed=1)),
]


@pytest.mark.parametrize(("name", "arguments", "step"), CUTS, ids=lambda value: None if callable(value) else str(value))
@pytest.mark.parametrize("logits", ROWS, ids=lambda logits: str(logits.size))
def test_the_same_are_kept(name: str, arguments: tuple[float, ...], step: Step, logits: np.ndarray) -> None:
    api = library()
    wanted = theirs(api, getattr(api, f"llama_sampler_init_{name}")(*arguments), logits)
    assert step(candidates(logits), []).ids.tolist() == wanted.ids.tolist()


@pytest.mark.parametrize("logits", ROWS, ids=lambda logits: str(logits.size))
@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        ((0.7, 0.0, 1.0), Temperature(0.7)),
        ((0.0, 0.0, 1.0), Temperature(0.0)),
        ((1.0, 0.5, 1.0), DynamicTemperature(0.5, 1.5, 1.0)),
        ((0.5, 0.8, 2.0), DynamicTemperature(0.0, 1.3, 2.0)),
    ],
    ids=str,
)
def test_the_same_temperature(arguments: tuple[float, float, float], step: Step, logits: np.ndarray) -> None:
    api = library()
    wanted = theirs(api, api.llama_sampler_init_temp_ext(*arguments), logits)
    found = step(candidates(logits), [])
    assert found.ids.tolist() == wanted.ids.tolist()
    assert softmax64(found.logits) == pytest.approx(softmax64(wanted.logits), rel=2e-3, abs=1e-7)


@pytest.mark.parametrize("tau", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("logits", ROWS[1:], ids=lambda logits: str(logits.size))  # flat, its k overflows to 1
def test_mirostat_begins_with_the_same_cut(tau: float, logits: np.ndarray) -> None:
    api = library()
    first = theirs(api, api.llama_sampler_init_mirostat(logits.size, 1, tau, 0.1, 100), logits)
    assert Mirostat1(tau, 0.1, logits.size).cut(candidates(logits)).ids.tolist() == first.ids.tolist()
    second = theirs(api, api.llama_sampler_init_mirostat_v2(1, tau, 0.1), logits)
    assert Mirostat(tau, 0.1).cut(candidates(logits)).ids.tolist() == second.ids.tolist()


@pytest.mark.parametrize("strengths", [(1.3, 0.0, 0.0), (1.0, 0.4, 0.3), (0.8, -0.5, 1.0)], ids=str)
@pytest.mark.parametrize("last_n", [1, 20, 64])
def test_the_same_penalties(strengths: tuple[float, float, float], last_n: int) -> None:
    api = library()
    tokens = np.random.default_rng(1).integers(0, 30, 50).tolist()
    logits = ROWS[1]
    wanted = theirs(api, api.llama_sampler_init_penalties(logits.size, last_n, *strengths), logits, tokens)
    assert Penalties(*strengths, last_n)(candidates(logits), tokens).logits == pytest.approx(wanted.logits, abs=1e-5)


@pytest.fixture(scope="module")
def vocabulary() -> Iterator[Any]:
    api = library()
    parameters = api.llama_model_default_params()
    parameters.vocab_only = True
    model = api.llama_model_load_from_file(str(DEMO).encode(), parameters)
    assert model
    yield api.llama_model_get_vocab(model)
    api.llama_model_free(model)


@pytest.mark.parametrize("spread", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("seed", range(8))
def test_the_same_for_infill(vocabulary: Any, spread: float, seed: int) -> None:
    api = library()
    with GgufFile.open(DEMO) as file:
        tokenizer = Tokenizer.from_gguf(file.metadata)
    logits = np.random.default_rng(seed).normal(0, spread, tokenizer.vocab_size).astype(np.float32)
    logits[0] = -np.inf  # <|endoftext|>, which llama.cpp takes for an end because of its name
    cut = TopK(12)(candidates(logits), [])
    logits[np.setdiff1d(np.arange(logits.size), [*cut.ids, *tokenizer.stop_ids])] = -np.inf
    wanted = theirs(api, api.llama_sampler_init_infill(vocabulary), logits)
    found = Infill(tokenizer.pieces, np.array(sorted(tokenizer.stop_ids)))(candidates(logits), [])
    assert found.ids[found.logits > -np.inf].tolist() == wanted.ids.tolist()


@pytest.mark.parametrize("breakers", [(), SamplingParams().dry_sequence_breakers, ("the",)], ids=str)
@pytest.mark.parametrize(("allowed", "last_n"), [(2, 512), (1, 30), (4, 64)])
def test_the_same_dry(vocabulary: Any, breakers: tuple[str, ...], allowed: int, last_n: int) -> None:
    """At every place of a text that repeats itself."""
    api = library()
    with GgufFile.open(DEMO) as file:
        tokenizer = Tokenizer.from_gguf(file.metadata)
    tokens = tokenizer.encode(TEXT, add_special=False)
    logits = np.zeros(tokenizer.vocab_size, dtype=np.float32)
    texts = (ctypes.c_char_p * max(1, len(breakers)))(*(text.encode() for text in breakers))
    step = Dry(0.8, 1.75, allowed, last_n, Breakers.find(breakers, tokenizer.pieces))
    penalised = 0
    for end in range(1, len(tokens) + 1):
        sampler = api.llama_sampler_init_dry(vocabulary, 0.8, 1.75, allowed, last_n, texts, len(breakers))
        wanted = theirs(api, sampler, logits, tokens[:end])
        found = step(candidates(logits), tokens[:end])
        assert found.logits == pytest.approx(wanted.logits, rel=1e-5), end
        penalised += int(found.logits.any())
    assert penalised
