"""Embeddings: how the values of a text's tokens become one vector, here and on the event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import ContextLengthError, UnsupportedError

from edgert import LLM, gathering
from tests.edgert.answers import quiet
from tests.edgert.tiny_gguf import write_tiny


def opened(folder: Path, **metadata: int) -> LLM:
    path = write_tiny(folder / "tiny.gguf", metadata={f"qwen3moe.{key}": value for key, value in metadata.items()})
    return LLM(path, backend="reference", context=64)


def test_the_last_token_counts_where_the_file_says_so(tmp_path: Path) -> None:
    with opened(tmp_path, pooling_type=3) as llm:
        ids = llm.tokenize("hello world")
        (rows,) = gathering.rows([llm._evaluation(ids)])
        expected = rows[-1].astype(np.float64)
        assert np.allclose(llm.embed([ids])[0], expected / np.linalg.norm(expected), atol=1e-6)


def test_others_are_refused_when_asked(tmp_path: Path) -> None:
    with opened(tmp_path, pooling_type=2) as llm:
        assert llm.generate("hello").token_ids
        with pytest.raises(UnsupportedError, match=r"qwen3moe\.pooling_type is 2; embeddings know \[0, 1, 3\]"):
            llm.embed("hello")


def test_on_the_event_loop(tmp_path: Path) -> None:
    async def both(llm: LLM) -> None:
        found = await asyncio.gather(llm.aembed("hello"), llm.aembed("world"))
        assert np.allclose(found, llm.embed(["hello", "world"]), atol=1e-6)
        with pytest.raises(ContextLengthError, match="do not fit the context of 64"):
            await llm.aembed("x" * 100)
        waiting = asyncio.ensure_future(llm.aembed("x" * 50))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with opened(tmp_path) as llm:
        asyncio.run(both(llm))
        assert quiet(llm)
