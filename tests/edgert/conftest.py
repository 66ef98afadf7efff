from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from edgert_runtimes.registry import get_backend

from edgert import LLM, BackendError
from tests.edgert.tiny_gguf import write_tiny


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session", params=["reference", "cpu"])
def backend_name(request: pytest.FixtureRequest) -> str:
    try:
        get_backend(request.param)
    except BackendError as error:
        pytest.skip(str(error))
    return str(request.param)


@pytest.fixture(scope="session")
def tiny(tiny_path: Path, backend_name: str) -> Iterator[LLM]:
    """The tiny model, shared by tests that leave it as it is."""
    with LLM(tiny_path, backend=backend_name, threads=2) as llm:
        yield llm


@pytest.fixture
def open_tiny(tiny_path: Path, backend_name: str) -> Iterator[Callable[..., LLM]]:
    """Open the tiny model with other options; closed at the end."""
    opened: list[LLM] = []

    def open_model(path: Path = tiny_path, **options: Any) -> LLM:
        llm = LLM(path, **{"backend": backend_name, "threads": 2, **options})
        opened.append(llm)
        return llm

    yield open_model
    for llm in opened:
        llm.close()
