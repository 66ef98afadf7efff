"""Files of ours run in llama.cpp, and files of llama.cpp's quantizer run in ours, with the same greedy tokens."""

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgert_models.graph import Role
from edgert_models.registry import build_plan, metadata_from_spec
from edgert_models.rope import Rope, RopeLayout
from edgert_models.router import Router
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufWriter
from edgert_runtimes.conformance.tiny import random_weights, tiny_spec
from edgert_runtimes.registry import get_backend

from tests.quant.convert.quantized import FORMS, quantized, write
from tests.support import llama_cpp
from tests.support.golden import FOLDER, NAMES, expected, logits_of, relative_error

pytestmark = pytest.mark.slow

DIFFERENT = {
    "deepseek-v2-groups",
    "exaone4-windows",
    "gpt-oss-yarn",
    "ministral",
    "mistral-window",
    "olmoe-fused",
    "phi3-window",
    "phimoe",
    "qwen2moe-fused",
    "qwen3moe-plain-weights",
}  # the converter warns of these
NOT_LOADED = {
    "aria",
    "axk1",
    "mellum-dense",
    "ernie4.5-biased",
    "flex-olmo",
    "flint",
    "kolibri",
    "lara-mini",
    "llama4",
    "qwen2moe-dense-layers",
    "qwen3.5",
    "qwen3moe-dense-layers",
}  # of these too
GELU = {
    "grok",
    "grok-2",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma4",
    "gemma4-moe",
}  # which llama.cpp looks up in a table of halves
KEPT = {"gpt-oss-mxfp4"}  # experts that stay in their type in every mix
WIDE: dict[str, dict[str, Any]] = {
    "llama": {"feed_forward": 512, "tied": True},
    "mixtral": {
        "architecture": "llama",
        "experts": 8,
        "experts_used": 2,
        "expert_feed_forward": 256,
        "feed_forward": 0,
    },
    "qwen3moe": {"experts": 6, "expert_feed_forward": 256, "layers": 3},
    "olmoe": {"kv_heads": 4, "expert_feed_forward": 256, "router": Router(normalize=False)},
    "qwen2moe": {
        "experts": 6,
        "expert_feed_forward": 256,
        "shared_feed_forward": 512,
        "router": Router(normalize=False),
        "attention_bias": True,
        "layers": 3,
    },
    "gpt-oss": {
        "experts": 6,
        "expert_feed_forward": 256,
        "layers": 3,
        "heads": 8,
        "window": 7,
        "attention_bias": True,
        "output_bias": True,
    },
}


def wide_model(name: str, path: Path) -> None:
    """A model in F32 of rows that K types divide."""
    changes = {"architecture": name, "width": 256, "head_size": 64, "heads": 4, "feed_forward": 0, **WIDE[name]}
    layout = RopeLayout.INTERLEAVED if changes["architecture"] == "llama" else RopeLayout.HALVES
    spec = tiny_spec(**changes, rope=Rope(dims=64, layout=layout))
    plan = build_plan(spec)
    weights = random_weights(plan, seed=3)
    with GgufWriter(path) as writer:
        writer.add_metadata("general.architecture", spec.architecture)
        for key, value in metadata_from_spec(spec).items():
            writer.add_metadata(key, value)
        writer.add_metadata("tokenizer.ggml.model", "none")
        for weight in plan.weights.values():
            writer.add_tensor(weight.name, weights.weights[weight.name].type, weight.shape)
        writer.begin()
        for weight in plan.weights.values():
            gain = 0.3 if weight.role is not Role.VECTOR and ("output" in weight.name or "down" in weight.name) else 1.0
            rows = weights.read(weight.name).view(np.float32) * np.float32(gain)
            writer.write(weight.name, rows)


def check_greedy(path: Path, prompt: list[int], count: int, tolerance: float) -> None:
    """Continue a prompt greedily with the reference; llama.cpp's logits along it are close, and choose the same."""
    backend = get_backend("reference")
    tokens = list(prompt)
    for _ in range(count):
        ours = logits_of(backend, path, np.array([tokens]))[0]
        tokens.append(int(ours[-1].argmax()))
    ours = logits_of(backend, path, np.array([tokens[:-1]]))[0]
    theirs = llama_cpp.logits(path, tokens[:-1])
    exact = tolerance < 1e-3
    errors = np.linalg.norm(theirs - ours, axis=1) / np.linalg.norm(ours, axis=1)
    close = errors <= tolerance
    # llama.cpp rounds activations to 8 bits: now and then that turns a tie between experts, or between tokens.
    assert close.mean() >= (1.0 if exact else 0.8)
    chosen = theirs.argmax(axis=1)
    assert (chosen == ours.argmax(axis=1)).mean() >= (1.0 if exact else 0.8)
    lost = (ours.max(axis=1) - ours[np.arange(len(ours)), chosen]) / np.abs(ours).max(axis=1)
    assert (lost[close] <= 2 * tolerance).all()


@pytest.mark.parametrize(("recipe", "tolerance"), [("f32", 1e-5), ("f16", 1e-3), ("q8_0", 1.5e-2)])
@pytest.mark.parametrize("name", sorted(set(NAMES) - DIFFERENT - NOT_LOADED))
def test_golden_checkpoints_in_llama_cpp(name: str, recipe: str, tolerance: float, tmp_path: Path) -> None:
    llama_cpp.library()
    convert(FOLDER / name, tmp_path / "model.gguf", type=recipe)
    if name in KEPT:
        tolerance = 1.5e-2
    if name in GELU:
        tolerance = max(tolerance, 5e-4)
    check_greedy(tmp_path / "model.gguf", expected(name)[0][0, :6].tolist(), 10, tolerance)


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_the_converter_is_right_to_warn(name: str, tmp_path: Path) -> None:
    llama_cpp.library()
    report = convert(FOLDER / name, tmp_path / "model.gguf", type="f32")
    assert any("llama.cpp" in text for text in report.warnings)
    tokens, logits = expected(name)
    assert relative_error(llama_cpp.logits(tmp_path / "model.gguf", tokens[0].tolist()), logits[0])[0] > 1e-2


QUANTIZED = ["q8_0", "q4_0", "q4_k_m", "q4_k_s", "q5_k_m", "q6_k", "bf16"]
GRIDS = ["iq3_m", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xxs", "iq1_m", "iq1_s"]


@pytest.mark.parametrize("recipe", [*QUANTIZED, *GRIDS])
@pytest.mark.parametrize("name", WIDE)
def test_quantized_files_in_llama_cpp(name: str, recipe: str, tmp_path: Path) -> None:
    llama_cpp.library()
    wide_model(name, tmp_path / "f32.gguf")
    convert(tmp_path / "f32.gguf", tmp_path / "model.gguf", type=recipe)
    check_greedy(tmp_path / "model.gguf", [5, 17, 80, 3], 12, 2e-2)


@pytest.mark.parametrize("form", ["int4", "gptq", "gptq-zeros", "fp8"])
@pytest.mark.parametrize("name", ["qwen3moe", "mixtral"])
def test_quantized_checkpoints_in_llama_cpp(name: str, form: str, tmp_path: Path) -> None:
    llama_cpp.library()
    folder = write(tmp_path / "checkpoint", *quantized(name, *FORMS[form])[:2])
    assert convert(folder, tmp_path / "model.gguf").recipe == "native"
    check_greedy(tmp_path / "model.gguf", [5, 17, 80, 3], 12, 2e-2)


@pytest.mark.parametrize("recipe", ["q8_0", "q4_0", "q4_k_m", "q5_k_m", "q6_k"])
@pytest.mark.parametrize("name", WIDE)
def test_files_of_llama_quantize_in_ours(name: str, recipe: str, tmp_path: Path) -> None:
    program = llama_cpp.programs() / "llama-quantize"
    wide_model(name, tmp_path / "f32.gguf")
    command = [str(program), str(tmp_path / "f32.gguf"), str(tmp_path / "model.gguf"), recipe, "2"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "LD_LIBRARY_PATH": str(program.parent)})
    check_greedy(tmp_path / "model.gguf", [5, 17, 80, 3], 12, 2e-2)
