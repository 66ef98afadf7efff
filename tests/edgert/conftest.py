"""Tiny models to open. What is heavy is imported by the tests that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.backends import GPUS

if TYPE_CHECKING:
    from edgert import LLM


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.edgert.tiny_gguf import write_tiny

    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session", params=["reference", "cpu", *GPUS])
def backend_name(request: pytest.FixtureRequest) -> str:
    from edgert_models.errors import BackendError
    from edgert_runtimes.registry import get_backend

    try:
        get_backend(request.param)
    except BackendError as error:
        pytest.skip(str(error))
    return str(request.param)


@pytest.fixture(scope="session")
def tiny(tiny_path: Path, backend_name: str) -> Iterator[LLM]:
    """The tiny model, shared by tests that leave it as it is."""
    from edgert import LLM

    with LLM(tiny_path, backend=backend_name, threads=2) as llm:
        yield llm


@pytest.fixture
def open_tiny(tiny_path: Path, backend_name: str) -> Iterator[Callable[..., LLM]]:
    """Open the tiny model with other options; closed at the end."""
    from edgert import LLM

    opened: list[LLM] = []

    def open_model(path: Path = tiny_path, **options: Any) -> LLM:
        llm = LLM(path, **{"backend": backend_name, "threads": 2, **options})
        opened.append(llm)
        return llm

    yield open_model
    for llm in opened:
        llm.close()
