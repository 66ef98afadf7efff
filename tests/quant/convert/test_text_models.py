"""Checkpoints whose text model is a part of another."""

import json
from pathlib import Path

import numpy as np
import pytest
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufFile

from tests.quant.convert.checkpoints import load, save
from tests.support.golden import FOLDER

BESIDE = {
    "qwen3.5-moe": ("mtp.fc.weight", "model.visual.patch.bias"),
    "gemma4-moe": ("model.embed_vision.embedding_projection.weight", "model.vision_tower.patch.bias"),
    "gemma4-shared": ("model.language_model.layers.3.self_attn.k_proj.weight",),
    "gemma3": ("multi_modal_projector.weight", "vision_tower.patch.bias"),
}


@pytest.mark.parametrize(
    ("name", "kind", "prefix"),
    [
        ("qwen3.5-moe", "Qwen3_5MoeForConditionalGeneration", "model.language_model."),
        ("gemma3", "Gemma3ForConditionalGeneration", "model.language_model."),
        ("gemma4-moe", "Gemma4ForConditionalGeneration", "model.language_model."),
        ("gemma4-shared", "Gemma4ForConditionalGeneration", "model.language_model."),
        ("gemma3", "Gemma3ForConditionalGeneration", "language_model.model."),
    ],
)
def test_the_text_model_of_another(name: str, kind: str, prefix: str, tmp_path: Path) -> None:
    tensors = {key.replace("model.", prefix, 1): value for key, value in load(FOLDER / name).items()}
    beside = {key: np.ones((2, 2), np.float32) for key in BESIDE[name]}
    config = {"architectures": [kind], "text_config": json.loads((FOLDER / name / "config.json").read_text())}
    convert(FOLDER / name, tmp_path / "text.gguf", type="f32")
    nested = save(tmp_path / "nested", tensors | beside, config)
    report = convert(nested, tmp_path / "nested.gguf", type="f32")
    (warning,) = (text for text in report.warnings if "left out" in text)
    assert warning == f"left out, as edgert does not use it: {', '.join(BESIDE[name])}"
    with GgufFile.open(tmp_path / "text.gguf") as text, GgufFile.open(tmp_path / "nested.gguf") as found:
        assert set(text.tensors) == set(found.tensors)
        assert all(np.array_equal(text.read(key), found.read(key)) for key in text.tensors)
