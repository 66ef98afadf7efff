"""Files of before 2025, with the products for keys and for values of latent attention in one tensor."""

from pathlib import Path

import numpy as np
import pytest
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufFile, GgufWriter
from edgert_quant.together import split_tensors
from edgert_runtimes.weights import GgufWeights

from tests.support.backends import open_backend
from tests.support.golden import FOLDER, expected, logits_of, relative_error

NAME = "deepseek-v3"
HEADS, PLAIN, ROTATED, VALUE, RANK = 4, 32, 32, 32, 32


def old_file(path: Path, kind: BlockType = BlockType.F32) -> Path:
    """A golden checkpoint as llama.cpp's converter wrote it then, both products in blocks of one kind."""
    convert(FOLDER / NAME, path.with_suffix(".new"), type="f32")
    sizes = {"head_count_kv": HEADS, "key_length": PLAIN + ROTATED, "value_length": VALUE}
    with GgufFile.open(path.with_suffix(".new")) as new, GgufWriter(path) as writer:
        for key, value in new.metadata.items():
            short = key.removeprefix("deepseek2.attention.")
            if not short.endswith("_mla"):
                writer.add_metadata(key, sizes.get(short, value), new.metadata.stored_type(key))
        together = {}
        for name, tensor in new.tensors.items():
            if name.endswith("attn_k_b.weight"):
                pair = [new.tensors[name], new.tensors[name.replace("_k_b", "_v_b")]]
                keys, values = (dequantize(new.read(t.name), t.type).reshape(t.shape) for t in pair)
                rows = np.concatenate([keys.swapaxes(1, 2), values], axis=1).reshape(-1, RANK)
                together[name.replace("_k_b", "_kv_b")] = rows
            elif not name.endswith("attn_v_b.weight"):
                writer.add_tensor(name, tensor.type, tensor.shape)
        for name, rows in together.items():
            writer.add_tensor(name, kind, rows.shape)
        writer.begin()
        for name in new.tensors:
            if not name.endswith(("attn_k_b.weight", "attn_v_b.weight")):
                writer.write(name, new.read(name))
        for name, rows in together.items():
            writer.write(name, quantize(rows, kind))
    return path


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_logits_are_those_of_transformers(backend: str, tmp_path: Path) -> None:
    tokens, logits = expected(NAME)
    found = logits_of(open_backend(backend), old_file(tmp_path / "old.gguf"), tokens)
    assert max(relative_error(found, logits)) <= 1e-4


def test_it_converts_to_todays_form(tmp_path: Path) -> None:
    old = old_file(tmp_path / "old.gguf")
    report = convert(old, tmp_path / "again.gguf", type="f32")
    assert not any("attn_kv_b" in text for text in report.warnings)
    with GgufFile.open(tmp_path / "again.gguf") as again, GgufFile.open(tmp_path / "old.new") as new:
        assert set(again.tensors) == set(new.tensors)
        assert all(np.array_equal(again.read(name), new.read(name)) for name in new.tensors)
        for key in ("head_count_kv", "key_length", "value_length", "key_length_mla", "value_length_mla"):
            assert again.metadata[f"deepseek2.attention.{key}"] == new.metadata[f"deepseek2.attention.{key}"]


def test_any_rows_can_be_read(tmp_path: Path) -> None:
    with GgufFile.open(old_file(tmp_path / "old.gguf")) as file:
        weights = GgufWeights(file)
        for name, tensor in split_tensors(file).items():
            whole = weights.read(name)
            assert whole.shape == (HEADS * tensor.shape[1], 4 * tensor.shape[2])
            for start, count in ((0, 1), (31, 2), (5, 100), (127, 1), (3, 0)):
                assert np.array_equal(weights.read(name, start, count), whole[start : start + count])
            assert weights.map(name) is None


def test_blocks_of_values_stay_and_keys_become_halves(tmp_path: Path) -> None:
    with GgufFile.open(old_file(tmp_path / "old.gguf", BlockType.Q8_0)) as file:
        made = split_tensors(file)
        keys, values = made["blk.0.attn_k_b.weight"], made["blk.0.attn_v_b.weight"]
        assert (keys.type, values.type) == (BlockType.F16, BlockType.Q8_0)
        assert (keys.shape, values.shape) == ((HEADS, RANK, PLAIN), (HEADS, VALUE, RANK))
        rows = dequantize(file.read("blk.0.attn_kv_b.weight"), BlockType.Q8_0).reshape(HEADS, PLAIN + VALUE, RANK)
        found = dequantize(keys.read(), BlockType.F16).reshape(keys.shape)
        assert np.allclose(found, rows[:, :PLAIN].swapaxes(1, 2), rtol=1e-3)
        assert np.array_equal(dequantize(values.read(), BlockType.Q8_0).reshape(values.shape), rows[:, PLAIN:])
