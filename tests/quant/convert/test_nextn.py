"""Layers for multi-token prediction: kept by the converter, quantized as others are, and not run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import ConversionError, RequestError
from edgert_models.registry import spec_from_gguf
from edgert_quant.blocks import BlockType
from edgert_quant.convert import convert
from edgert_quant.convert.run import open_source
from edgert_quant.gguf import GgufFile
from edgert_quant.imatrix import write_imatrix
from edgert_runtimes.registry import get_backend
from typer.testing import CliRunner

from edgert.cli.app import app
from tests.quant.convert.checkpoints import load, save
from tests.quant.convert.mtp import with_layer
from tests.quant.imatrix.samples import importance_of
from tests.support.golden import FOLDER, expected, logits_of, relative_error

OWN = {"nextn.eh_proj.weight", "nextn.enorm.weight", "nextn.hnorm.weight"}


def layer_of(file: GgufFile, number: int) -> dict[str, BlockType]:
    """Its tensors without the beginning of their names, with their types."""
    prefix = f"blk.{number}."
    return {key.removeprefix(prefix): tensor.type for key, tensor in file.tensors.items() if key.startswith(prefix)}


@pytest.mark.parametrize(
    ("golden", "architecture", "matrix"), [("glm4moe", "glm4moe", "attn_q"), ("deepseek-v3", "deepseek2", "attn_k_b")]
)
def test_they_are_kept_and_not_run(golden: str, architecture: str, matrix: str, tmp_path: Path) -> None:
    report = convert(with_layer(golden, tmp_path / "checkpoint"), tmp_path / "f32.gguf", type="f32")
    assert not any("layers" in text for text in report.warnings)
    convert(tmp_path / "f32.gguf", tmp_path / "q8_0.gguf", type="q8_0")
    for name, kind in (("f32", BlockType.F32), ("q8_0", BlockType.Q8_0)):
        with GgufFile.open(tmp_path / f"{name}.gguf") as file:
            spec = spec_from_gguf(file.metadata, {key: tensor.shape for key, tensor in file.tensors.items()})
            assert (spec.layers, spec.nextn, file.metadata.integer(f"{architecture}.block_count")) == (2, 1, 3)
            last, kinds = layer_of(file, 1), layer_of(file, 2)
        assert set(kinds) == set(last) | OWN | {"nextn.shared_head_norm.weight"}
        assert {kinds[f"{key}.weight"] for key in ("nextn.eh_proj", matrix, "ffn_up_exps")} == {kind}
        assert kinds["nextn.enorm.weight"] is BlockType.F32
    tokens, logits = expected(golden)
    found = logits_of(get_backend("reference"), tmp_path / "f32.gguf", tokens)
    assert max(relative_error(found, logits)) <= 1e-4
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "q8_0.gguf")]).output
    assert "runs here: yes; its 1 layers for multi-token prediction are kept, not run" in shown


def test_an_importance_matrix_need_not_know_them(tmp_path: Path) -> None:
    source = open_source(FOLDER / "glm4moe")
    write_imatrix(tmp_path / "i.gguf", importance_of(source.weights.values()))
    source.close()
    folder = with_layer("glm4moe", tmp_path / "checkpoint")
    convert(folder, tmp_path / "q4_0.gguf", type="q4_0", imatrix=tmp_path / "i.gguf")
    with GgufFile.open(tmp_path / "q4_0.gguf") as file:
        assert file.tensors["blk.2.ffn_up_exps.weight"].type is BlockType.Q4_0


SHARED = {"nextn.shared_head_norm.weight"}
MOVED = [
    ("cohere2moe", 1, SHARED),
    ("qwen3-next", 1, SHARED),
    ("qwen3.5", 1, SHARED),
    ("exaone-moe", 0, SHARED),
    ("nemotron-h-moe", 1, SHARED | {"post_attention_norm.weight"}),
    ("ernie4.5-moe", 0, set()),
]


@pytest.mark.parametrize(("golden", "like", "others"), MOVED)
def test_where_families_have_them(golden: str, like: int, others: set[str], tmp_path: Path) -> None:
    """What such a layer has is what the layer has that it was made of, its own, and what the family has besides."""
    folder = with_layer(golden, tmp_path / "checkpoint")
    report = convert(folder, tmp_path / "f32.gguf", type="f32", mtp=True)
    assert not any("left out" in text for text in report.warnings)
    with GgufFile.open(tmp_path / "f32.gguf") as file:
        spec = spec_from_gguf(file.metadata, {key: tensor.shape for key, tensor in file.tensors.items()})
        experts = (
            {key for key in layer_of(file, 2) if key.startswith(("ffn", "exp"))} if "nemotron" in golden else set()
        )
        assert set(layer_of(file, spec.layers)) == set(layer_of(file, like)) | experts | OWN | others
        norms = [f"blk.{spec.layers}.nextn.enorm.weight", f"blk.{spec.layers}.attn_norm.weight"]
        assert all(np.isfinite(file.read(name).view(np.float32)).all() for name in norms)
    tokens, logits = expected(golden)
    found = logits_of(get_backend("reference"), tmp_path / "f32.gguf", tokens)
    assert max(relative_error(found, logits)) <= 1e-4


def test_parts_in_shapes_of_different_layers(tmp_path: Path) -> None:
    """MiMo-V2's have key heads of layers with a window, and the feed-forward network of the dense layer."""
    convert(with_layer("mimo-v2", tmp_path / "checkpoint"), tmp_path / "f32.gguf", type="f32")
    with GgufFile.open(tmp_path / "f32.gguf") as file:
        shapes = {key: tensor.shape for key, tensor in file.tensors.items()}
        assert shapes["blk.3.attn_k.weight"] == shapes["blk.1.attn_k.weight"] != shapes["blk.0.attn_k.weight"]
        assert shapes["blk.3.ffn_up.weight"] == shapes["blk.0.ffn_up.weight"]
        assert {"blk.3.attn_sinks.weight", "blk.3.layer_output_norm.weight"} <= set(shapes)
        assert list(file.metadata.integers("mimo2.attention.head_count_kv", count=4)) == [1, 2, 2, 2]


def test_norms_that_differ_from_one_are_whole(tmp_path: Path) -> None:
    folder = with_layer("qwen3.5", tmp_path / "checkpoint")
    convert(folder, tmp_path / "f32.gguf", type="f32")
    with GgufFile.open(tmp_path / "f32.gguf") as file:
        found = file.read("blk.3.nextn.hnorm.weight").view(np.float32)[0]
    assert found == pytest.approx(load(folder)["mtp.pre_fc_norm_hidden.weight"] + 1)


def test_they_are_left_out_when_asked_or_where_llama_cpp_does_not_know_them(tmp_path: Path) -> None:
    asked = convert(with_layer("qwen3-next", tmp_path / "a"), tmp_path / "a.gguf", type="f32", mtp=False)
    assert "left out, as asked: 1 layers for multi-token prediction" in asked.warnings
    unknown = convert(with_layer("ernie4.5-moe", tmp_path / "b"), tmp_path / "b.gguf", type="f32")
    why = "because llama.cpp would not load the file (mtp, --mtp keeps them)"
    assert f"left out, {why}: 1 layers for multi-token prediction" in unknown.warnings
    for name, layer in (("a", 3), ("b", 3)):
        with GgufFile.open(tmp_path / f"{name}.gguf") as file:
            assert not layer_of(file, layer)
    with pytest.raises(RequestError, match="layers are left out of checkpoints only, not of GGUF files"):
        convert(tmp_path / "a.gguf", tmp_path / "c.gguf", mtp=False)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = with_layer("qwen3-next", tmp_path / "checkpoint")
    tensors = load(folder)
    del tensors["mtp.layers.0.self_attn.k_proj.weight"]
    save(folder, tensors, json.loads((folder / "config.json").read_text()))
    with pytest.raises(
        ConversionError, match=r"no tensor mtp\.layers\.0\.self_attn\.k_proj\.weight, needed for blk\.3\."
    ):
        convert(folder, tmp_path / "model.gguf", type="f32")


def test_what_is_not_kept_is_said(tmp_path: Path) -> None:
    tensors = load(FOLDER / "exaone-moe")
    tensors["mtp.fc.weight"] = np.zeros((64, 128), np.float32)
    config = json.loads((FOLDER / "exaone-moe" / "config.json").read_text())
    report = convert(save(tmp_path / "checkpoint", tensors, config), tmp_path / "model.gguf", type="f32")
    assert "left out, as edgert does not use it: mtp.fc.weight" in report.warnings
