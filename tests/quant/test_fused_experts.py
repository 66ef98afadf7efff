"""Files of llama.cpp's converter, with gates and ups of experts in one tensor."""

from pathlib import Path

import numpy as np
import pytest
from edgert_quant.blocks import BlockType
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufFile, GgufWriter
from edgert_quant.together import split_tensors

from tests.support.backends import open_backend
from tests.support.golden import FOLDER, expected, logits_of, relative_error

NAME = "gemma4-moe"
EXPERTS, HIDDEN, WIDTH = 6, 32, 64


def fused_file(path: Path, recipe: str = "f32") -> Path:
    """A golden checkpoint as llama.cpp's converter writes it."""
    convert(FOLDER / NAME, path.with_suffix(".apart"), type=recipe)
    with GgufFile.open(path.with_suffix(".apart")) as apart, GgufWriter(path) as writer:
        for key, value in apart.metadata.items():
            writer.add_metadata(key, value, apart.metadata.stored_type(key))
        data = {}
        for name, tensor in apart.tensors.items():
            if name.endswith("ffn_gate_exps.weight"):
                pair = [apart.read(each) for each in (name, name.replace("gate", "up"))]
                rows = np.concatenate([each.reshape(EXPERTS, HIDDEN, -1) for each in pair], axis=1)
                together = name.replace("gate", "gate_up")
                writer.add_tensor(together, tensor.type, (EXPERTS, 2 * HIDDEN, WIDTH))
                data[together] = rows.reshape(EXPERTS * 2 * HIDDEN, -1)
            elif not name.endswith("ffn_up_exps.weight"):
                writer.add_tensor(name, tensor.type, tensor.shape)
                data[name] = apart.read(name)
        writer.begin()
        for name, rows in data.items():
            writer.write(name, rows)
    return path


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_logits_are_those_of_transformers(backend: str, tmp_path: Path) -> None:
    tokens, logits = expected(NAME)
    found = logits_of(open_backend(backend), fused_file(tmp_path / "fused.gguf"), tokens)
    assert max(relative_error(found, logits)) <= 1e-4


def test_it_converts_to_the_same_file(tmp_path: Path) -> None:
    convert(fused_file(tmp_path / "fused.gguf"), tmp_path / "again.gguf", type="f32")
    with GgufFile.open(tmp_path / "again.gguf") as again, GgufFile.open(tmp_path / "fused.apart") as apart:
        assert set(again.tensors) == set(apart.tensors)
        assert all(np.array_equal(again.read(name), apart.read(name)) for name in apart.tensors)


def test_blocks_stay_as_they_are(tmp_path: Path) -> None:
    path = fused_file(tmp_path / "fused.gguf", "q8_0")
    with GgufFile.open(path) as file, GgufFile.open(path.with_suffix(".apart")) as apart:
        tensors = split_tensors(file)
        assert set(tensors) == {f"blk.{i}.ffn_{part}_exps.weight" for i in (0, 1) for part in ("gate", "up")}
        for name, tensor in tensors.items():
            assert (tensor.type, tensor.shape) == (BlockType.Q8_0, (EXPERTS, HIDDEN, WIDTH))
            assert np.array_equal(tensor.read(), apart.read(name))
            assert np.array_equal(tensor.read(31, 40), apart.read(name)[31:71])
