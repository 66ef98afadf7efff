"""Layers for multi-token prediction: kept by the converter, quantized as others are, and not run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
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
from tests.quant.imatrix.samples import importance_of
from tests.support.golden import FOLDER, expected, logits_of, relative_error

OWN = {"eh_proj": (64, 128), "enorm": (64,), "hnorm": (64,), "shared_head.norm": (64,)}


def checkpoint(golden: str, tmp_path: Path) -> Path:
    """With a layer for multi-token prediction that has no embedding and no head of its own."""
    tensors, rng = load(FOLDER / golden), np.random.default_rng(0)
    for name in [name for name in tensors if ".layers.1." in name]:
        tensors[name.replace(".layers.1.", ".layers.2.")] = tensors[name]
    for name, shape in OWN.items():
        tensors[f"model.layers.2.{name}.weight"] = rng.standard_normal(shape, dtype=np.float32)
    return save(tmp_path / "checkpoint", tensors, FOLDER / golden / "config.json")


@pytest.mark.parametrize(
    ("golden", "architecture", "matrix"), [("glm4moe", "glm4moe", "attn_q"), ("deepseek-v3", "deepseek2", "attn_k_b")]
)
def test_they_are_kept_and_not_run(golden: str, architecture: str, matrix: str, tmp_path: Path) -> None:
    report = convert(checkpoint(golden, tmp_path), tmp_path / "f32.gguf", type="f32")
    assert not any("layers" in text for text in report.warnings)
    convert(tmp_path / "f32.gguf", tmp_path / "q8_0.gguf", type="q8_0")
    for name, kind in (("f32", BlockType.F32), ("q8_0", BlockType.Q8_0)):
        with GgufFile.open(tmp_path / f"{name}.gguf") as file:
            spec = spec_from_gguf(file.metadata, {key: tensor.shape for key, tensor in file.tensors.items()})
            assert (spec.layers, spec.nextn, file.metadata.integer(f"{architecture}.block_count")) == (2, 1, 3)
            kinds = {key: tensor.type for key, tensor in file.tensors.items() if key.startswith("blk.2.")}
            last = {key.replace("blk.1.", "blk.2.") for key in file.tensors if key.startswith("blk.1.")}
        own = {"eh_proj", "enorm", "hnorm", "shared_head_norm"}
        assert set(kinds) == last | {f"blk.2.nextn.{key}.weight" for key in own}
        assert {kinds[f"blk.2.{key}.weight"] for key in ("nextn.eh_proj", matrix, "ffn_up_exps")} == {kind}
        assert kinds["blk.2.nextn.enorm.weight"] is BlockType.F32
    tokens, logits = expected(golden)
    found = logits_of(get_backend("reference"), tmp_path / "f32.gguf", tokens)
    assert max(relative_error(found, logits)) <= 1e-4
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "q8_0.gguf")]).output
    assert "runs here: yes; its 1 layers for multi-token prediction are kept, not run" in shown


def test_an_importance_matrix_need_not_know_them(tmp_path: Path) -> None:
    source = open_source(FOLDER / "glm4moe")
    write_imatrix(tmp_path / "i.gguf", importance_of(source.weights.values()))
    source.close()
    folder = checkpoint("glm4moe", tmp_path)
    convert(folder, tmp_path / "q4_0.gguf", type="q4_0", imatrix=tmp_path / "i.gguf")
    with GgufFile.open(tmp_path / "q4_0.gguf") as file:
        assert file.tensors["blk.2.ffn_up_exps.weight"].type is BlockType.Q4_0


def test_what_is_not_kept_is_said(tmp_path: Path) -> None:
    tensors = load(FOLDER / "exaone-moe")
    tensors["mtp.fc.weight"] = np.zeros((64, 128), np.float32)
    config = json.loads((FOLDER / "exaone-moe" / "config.json").read_text())
    report = convert(save(tmp_path / "checkpoint", tensors, config), tmp_path / "model.gguf", type="f32")
    assert "left out, as edgert does not use it: mtp.fc.weight" in report.warnings
