"""The CUDA backend behind an LLM, its kernels on the host: the engine, drawing ahead, and experts that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgert_runtimes.conformance.tiny import normalized_error
from edgert_runtimes.cpu.backend import CpuBackend
from edgert_runtimes.experts import OffloadingSession

from edgert import LLM, SamplingParams
from tests.support.backends import CUDA_ON_HOST, open_backend
from tests.support.cuda_device import HostCudaBackend

PROMPT = "Once upon a time"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> HostCudaBackend:
    backend = open_backend(CUDA_ON_HOST)
    assert isinstance(backend, HostCudaBackend)
    monkeypatch.setattr("edgert.llm.get_backend", lambda name: backend)
    return backend


def test_the_demo_model_computes_what_the_cpu_does(cuda: HostCudaBackend) -> None:
    """Not to the bit: the two quantize the inputs of products in different ways."""
    params = SamplingParams(max_tokens=10, temperature=0.0)
    with LLM(context=128, sequences=1, rows=16) as llm:
        tokens = llm.generate(PROMPT, params).token_ids
        (device,) = cuda.devices
        assert device.captures == 1  # one graph for all tokens
        assert device.replays == 9
        logits = llm.logits(llm.tokenize(PROMPT) + tokens)
    assert device.held == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgert.llm.get_backend", lambda name: CpuBackend())
        with LLM(context=128, threads=2) as llm:
            wanted = llm.logits(llm.tokenize(PROMPT) + tokens)
    assert normalized_error(logits, wanted) < 1e-3
    agreed = (logits.argmax(axis=1) == wanted.argmax(axis=1)).mean()
    assert agreed > 0.85


def test_drawn_tokens_are_found_ahead(cuda: HostCudaBackend) -> None:
    """The GPU draws as the engine does: no step is begun in vain, but for the one after the last token."""
    params = SamplingParams(max_tokens=10, temperature=0.9, top_k=50, top_p=0.95, min_p=0.02, seed=11)
    with LLM(context=128, sequences=1, rows=16) as llm:
        tokens = llm.generate(PROMPT, params).token_ids
        replays = cuda.devices[0].replays
        assert replays == 9
        assert (
            cuda.devices[0].downloaded < 3 * 4 * llm.vocabulary + 9 * 1024
        )  # logits of the first and last steps alone
        assert llm.generate(PROMPT, params).token_ids == tokens
    assert len(set(tokens)) > 5


def test_experts_that_do_not_fit_change_no_token(cuda: HostCudaBackend, tiny_path: Path) -> None:
    params = SamplingParams(max_tokens=12, temperature=0.0)
    found = []
    for memory in (None, 500_000):
        with LLM(tiny_path, context=64, sequences=1, rows=16, memory=memory) as llm:
            found.append(llm.generate("hello world", params).token_ids)
            use = llm.borrow(0, lambda session, blocks: session.expert_use())  # type: ignore[attr-defined]
            assert llm.borrow(0, lambda session, blocks: isinstance(session, OffloadingSession))
    assert found[0] == found[1]
    assert use is not None
    assert use.resident < use.experts
