"""Converted checkpoints of every architecture compute what transformers computes from the originals."""

from pathlib import Path

import pytest
from edgert_models.errors import BackendError
from edgert_quant.convert import convert
from edgert_runtimes.base import Backend
from edgert_runtimes.registry import get_backend

from tests.support.golden import FOLDER, NAMES, expected, logits_of, relative_error

TOLERANCES = {"f32": 1e-4, "q8_0": 1e-2}
QUANTIZED = "gpt-oss-mxfp4"  # experts that stay in their type, whose activations the cpu backend quantizes


@pytest.fixture(scope="module", params=["reference", "cpu", pytest.param("mlx", marks=pytest.mark.mlx)])
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return get_backend(request.param)
    except (BackendError, ImportError) as error:
        pytest.skip(f"backend {request.param} cannot run here: {error}")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden")


@pytest.mark.parametrize("recipe", ["f32", "q8_0"])
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name: str, recipe: str, backend: Backend, converted: Path) -> None:
    path = converted / f"{name}-{recipe}.gguf"
    if not path.exists():
        convert(FOLDER / name, path, type=recipe)
    tokens, logits = expected(name)
    error, largest = relative_error(logits_of(backend, path, tokens), logits)
    exact = recipe == "f32" and not (name == QUANTIZED and backend.name == "cpu")
    assert max(error, largest) <= TOLERANCES["f32" if exact else "q8_0"]
