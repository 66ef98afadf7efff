"""Layers with a window in blocks of their own through the embedded API: answers and logits are those without them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgert_quant.convert import convert

from edgert import LLM, SamplingParams
from edgert.capacity import choose_limits
from edgert.measure import Phase, Trial, measure
from tests.edgert.tiny_gguf import write_tiny
from tests.support.golden import FOLDER

DENSE = {"experts": 0, "experts_used": 0, "expert_feed_forward": 0}
SPECS: dict[str, dict[str, Any]] = {
    "every second layer": {"architecture": "gpt-oss", "windowed": (True, False), "window": 20},
    "every layer": {"architecture": "phi3", **DENSE, "window": 20},
    "chunks": {"architecture": "llama4", "windowed": (True, False), "window": 24, "chunked": True},
}
RECURRENT = "beside recurrent states"
TEXT = np.random.default_rng(0).integers(3, 90, 400).tolist()
PROMPTS = [TEXT[:150], TEXT[:70], TEXT[200:203], [*TEXT[:100], *TEXT[300:340]]]
PARAMS = [SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True) for count in (90, 20, 60, 30)]


@pytest.fixture(scope="module", params=[*SPECS, RECURRENT])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("windows") / f"{request.param}.gguf"
    if request.param in SPECS:
        return write_tiny(path, **{"context": 1024, **SPECS[request.param]})
    convert(FOLDER / "lara-mini", path, type="f32")
    return path


@pytest.mark.filterwarnings("ignore:the model was trained for a context of 64")
def test_answers_and_logits_are_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"backend": "cpu", "threads": 2, "context": 512, "sequences": 2, "rows": 32}
    speculate = "off" if path.stem == RECURRENT else "lookup"
    with LLM(path, speculate=speculate, **options) as llm:
        own, own_bytes = llm.limits.window_blocks, llm.report.cache_bytes
        assert 0 < own < llm.limits.blocks
        logits = llm.logits(TEXT[:200])
        alone = llm.generate(PROMPTS[0], PARAMS[0])
        longer = [*PROMPTS[0], *alone.token_ids, 5]
        turn = llm.generate(longer, PARAMS[1])
        together = llm.generate(PROMPTS, PARAMS)
        measure(llm, Trial(phase=Phase.DECODE, tokens=3, depth=100, batch=2), repeat=1)
        assert llm.generate(longer, PARAMS[1]).token_ids == turn.token_ids
        now = llm.statistics()
        assert now.window_blocks_held == 0
        assert now.guessed_tokens > 0 or speculate == "off"
    assert turn.usage.cached_tokens == 224  # whole blocks
    everywhere = {"windows": False}
    monkeypatch.setattr("edgert.llm.choose_limits", lambda *args, **given: choose_limits(*args, **given | everywhere))
    with LLM(path, speculate="off", **options) as llm:
        assert llm.limits.window_blocks == 0
        assert own_bytes < llm.report.cache_bytes
        np.testing.assert_array_equal(logits, llm.logits(TEXT[:200]))
        wanted = [llm.generate(prompt, params).token_ids for prompt, params in zip(PROMPTS, PARAMS, strict=True)]
        assert [answer.token_ids for answer in together] == wanted
        assert alone.token_ids == wanted[0]
        assert turn.token_ids == llm.generate(longer, PARAMS[1]).token_ids


@pytest.mark.filterwarnings("ignore:the model was trained for a context of 64")
def test_prefixes_are_found_on_disk(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgert.prefix_disk.cache_folder", lambda: tmp_path / "kernels")
    options: dict[str, Any] = {"backend": "cpu", "threads": 2, "context": 512, "sequences": 2, "rows": 32}
    found = []
    for _ in range(2):
        with LLM(path, prefix_disk=1 << 24, **options) as llm:
            assert llm.limits.window_blocks
            found.append(llm.generate(PROMPTS[0], PARAMS[1]))
            assert llm.statistics().disk_damaged == 0
    assert [answer.usage.cached_tokens for answer in found] == [0, 144]
    assert found[0].token_ids == found[1].token_ids


@pytest.mark.mlx
@pytest.mark.filterwarnings("ignore:the model was trained for a context of 64")
def test_answers_on_mlx(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlx.core", reason="the mlx package is not installed")
    monkeypatch.setenv("EDGERT_MLX_DTYPE", "float32")
    found = []
    for backend in ("mlx", "cpu"):
        with LLM(path, backend=backend, kv_type="f32", context=512, sequences=2, rows=32) as llm:
            assert 0 < llm.limits.window_blocks < llm.limits.blocks
            found.append([answer.token_ids for answer in llm.generate(PROMPTS, PARAMS)])
    assert found[0] == found[1]
