"""Converted checkpoints of every architecture compute what transformers computes from the originals."""

from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import UnsupportedError
from edgert_models.registry import build_plan, spec_from_config
from edgert_quant.convert import convert
from edgert_runtimes.base import Backend

from tests.golden.page import config_of
from tests.support.backends import BACKENDS, GPUS, open_backend
from tests.support.golden import FOLDER, NAMES, REFUSED_BY, expected, logits_in_steps, logits_of, relative_error

TOLERANCES = {"f32": 1e-4, "q8_0": 1e-2}
EIGHT_BITS = 2e-2  # where weights and inputs have eight bits each
WINDOWED = tuple(name for name in NAMES if build_plan(spec_from_config(config_of(name))).reach)
QUANTIZED = "gpt-oss-mxfp4"  # experts that stay in their type: their inputs are quantized, but by the reference


@pytest.fixture(scope="module", params=["reference", *BACKENDS])
def backend(request: pytest.FixtureRequest) -> Backend:
    return open_backend(request.param)


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
    if backend.name in REFUSED_BY.get(name, ()):
        with pytest.raises(UnsupportedError):
            logits_of(backend, path, tokens)
        return
    error, largest = relative_error(logits_of(backend, path, tokens), logits)
    exact = recipe == "f32" and not (name == QUANTIZED and backend.name in ("cpu", "cuda"))
    quantized = EIGHT_BITS if backend.name in ("cpu", "cuda") else TOLERANCES["q8_0"]
    assert max(error, largest) <= (TOLERANCES["f32"] if exact else quantized)


@pytest.mark.parametrize(
    "name",
    [
        "cohere2",
        "exaone4-windows",
        "falcon-h1",
        "flint",
        "gemma2",
        "gemma3",
        "gemma4-shared",
        "kimi-linear",
        "mellum",
        "nemotron-h",
        "nemotron-h-moe",
        "gpt-oss",
        "granitehybrid",
        "hunyuan-dense",
        "lfm2",
        "llama4",
        "ministral",
        "olmo3",
        "olmo3-yarn",
        "qwen3-next",
        "qwen3.5",
        "smollm3",
    ],
)
def test_logits_do_not_depend_on_the_steps(name: str, backend: Backend, converted: Path) -> None:
    path = converted / f"{name}-f32.gguf"
    if not path.exists():
        convert(FOLDER / name, path, type="f32")
    tokens, logits = expected(name)
    assert max(relative_error(logits_in_steps(backend, path, tokens), logits)) <= TOLERANCES["f32"]


@pytest.mark.parametrize("backend", ["reference", "cpu", *GPUS], indirect=True)
@pytest.mark.parametrize("name", WINDOWED)
def test_windows_in_rings(name: str, backend: Backend, converted: Path) -> None:
    """Each row sees the same where layers with a window have few blocks, again and again."""
    path = converted / f"{name}-f32.gguf"
    if not path.exists():
        convert(FOLDER / name, path, type="f32")
    tokens, logits = expected(name)
    found = logits_in_steps(backend, path, tokens, rings=True)
    if backend.name in ("reference", "cpu"):
        np.testing.assert_array_equal(found, logits_in_steps(backend, path, tokens))
    else:
        assert max(relative_error(found, logits)) <= TOLERANCES["f32"]
