"""Conversions with an importance matrix."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import ConversionError, RequestError
from edgert_models.graph import Role
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.convert import convert, pipeline
from edgert_quant.convert.run import open_source
from edgert_quant.gguf import GgufFile
from edgert_quant.imatrix import Importance, Sums, read_imatrix, write_imatrix

from tests.quant.imatrix.samples import importance_of, old_form, old_tail
from tests.support.golden import FOLDER

SOURCE = FOLDER / "qwen3moe"


@pytest.fixture(scope="module")
def importance() -> Importance:
    source = open_source(SOURCE)
    try:
        return importance_of(source.weights.values())
    finally:
        source.close()


@pytest.fixture
def path(importance: Importance, tmp_path: Path) -> Path:
    write_imatrix(tmp_path / "i.gguf", importance)
    return tmp_path / "i.gguf"


def tensors(path: Path) -> dict[str, tuple[BlockType, tuple[int, ...], np.ndarray]]:
    with GgufFile.open(path) as file:
        return {name: (tensor.type, tensor.shape, file.read(name)) for name, tensor in file.tensors.items()}


def test_every_row_has_the_importance_of_its_expert(importance: Importance, path: Path, tmp_path: Path) -> None:
    convert(SOURCE, tmp_path / "f32.gguf", type="f32")
    convert(SOURCE, tmp_path / "plain.gguf", type="q4_0")
    convert(SOURCE, tmp_path / "weighted.gguf", type="q4_0", imatrix=path)
    plain, floats = tensors(tmp_path / "plain.gguf"), tensors(tmp_path / "f32.gguf")
    for name, (kind, shape, found) in tensors(tmp_path / "weighted.gguf").items():
        rows = dequantize(floats[name][2], BlockType.F32)
        if name not in importance.sums:
            expected = plain[name][2]
        else:
            by_row = np.repeat(importance.of(name), int(np.prod(shape[:-1])) // len(importance.of(name)), axis=0)
            parts = [quantize(row, kind, importance=own) for row, own in zip(rows, by_row, strict=True)]
            expected = np.stack(parts)
            assert (kind is BlockType.F32) == np.array_equal(found, plain[name][2]), name
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_the_weighted_error_is_smaller(importance: Importance, path: Path, tmp_path: Path) -> None:
    convert(SOURCE, tmp_path / "f32.gguf", type="f32")
    errors = {}
    floats = tensors(tmp_path / "f32.gguf")
    for output, option in (("plain", None), ("weighted", path)):
        convert(SOURCE, tmp_path / f"{output}.gguf", type="q4_0", imatrix=option)
        errors[output] = 0.0
        for name, (kind, shape, found) in tensors(tmp_path / f"{output}.gguf").items():
            if name in importance.sums and kind is not BlockType.F32:
                of = importance.of(name)
                by_row = np.repeat(of, int(np.prod(shape[:-1])) // len(of), axis=0)
                difference = dequantize(found, kind) - dequantize(floats[name][2], BlockType.F32)
                errors[output] += float((by_row / by_row.mean() * difference**2).sum())
    assert errors["weighted"] < 0.7 * errors["plain"]


def test_bytes_depend_neither_on_threads_nor_on_pieces_nor_on_the_source(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(SOURCE, tmp_path / "f32.gguf", type="f32")
    convert(SOURCE, tmp_path / "a.gguf", type="q4_0", imatrix=path, threads=1)
    monkeypatch.setattr(pipeline, "_PIECE", 256)
    convert(SOURCE, tmp_path / "b.gguf", type="q4_0", imatrix=path, threads=3)
    convert(tmp_path / "f32.gguf", tmp_path / "c.gguf", type="q4_0", imatrix=path)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "c.gguf").read_bytes()


def test_what_the_file_says_of_it(importance: Importance, path: Path, tmp_path: Path) -> None:
    convert(SOURCE, tmp_path / "a.gguf", type="q8_0", imatrix=path)
    with GgufFile.open(tmp_path / "a.gguf") as file:
        found = {key: value for key, value in file.metadata.items() if key.startswith("quantize.")}
    assert found == {
        "quantize.imatrix.file": "i.gguf",
        "quantize.imatrix.dataset": "calm.txt",
        "quantize.imatrix.entries_count": len(importance.sums),
        "quantize.imatrix.chunks_count": 3,
    }
    convert(tmp_path / "a.gguf", tmp_path / "b.gguf", type="q8_0")
    with GgufFile.open(tmp_path / "b.gguf") as file:
        assert not any(key.startswith("quantize.imatrix") for key in file.metadata)


def test_the_output_matrix_counts_where_it_was_collected(importance: Importance, path: Path, tmp_path: Path) -> None:
    convert(SOURCE, tmp_path / "a.gguf", type="q8_0", imatrix=path)
    source = open_source(SOURCE)
    (output,) = (w for w in source.weights.values() if w.name == "output.weight")
    source.close()
    columns = np.zeros((1, output.shape[-1]), np.float32)
    columns[0, 0] = 1
    write_imatrix(path, replace(importance, sums={**importance.sums, output.name: Sums(columns, np.array([1]))}))
    convert(SOURCE, tmp_path / "b.gguf", type="q8_0", imatrix=path)
    a, b = tensors(tmp_path / "a.gguf"), tensors(tmp_path / "b.gguf")
    assert {name for name in a if not np.array_equal(a[name][2], b[name][2])} == {"output.weight"}


def test_rare_experts(importance: Importance, path: Path, tmp_path: Path) -> None:
    name = "blk.1.ffn_down_exps.weight"
    sums = importance.sums[name]
    counts = sums.counts.copy() + 100
    counts[3] = 5
    rest = {n: replace(s, counts=s.counts + 100) for n, s in importance.sums.items()}
    write_imatrix(path, replace(importance, sums={**rest, name: Sums(sums.in_sum2, counts)}))
    report = convert(SOURCE, tmp_path / "a.gguf", type="q4_0", imatrix=path, min_tokens_per_expert=5)
    (warning,) = (text for text in report.warnings if "expert" in text and "tokens" in text)
    assert warning.startswith("1 expert has seen fewer than 64 tokens, so that ")
    assert "the rarest is expert 3 of blk.1, with 5; calibrate with more text" in warning
    message = "i.gguf: expert 3 of blk.1 has seen 5 tokens, fewer than 6; calibrate with more text"
    with pytest.raises(ConversionError, match=re.escape(message)):
        convert(SOURCE, tmp_path / "b.gguf", type="q4_0", imatrix=path, min_tokens_per_expert=6)
    assert not (tmp_path / "b.gguf").exists()


def test_what_has_no_effect_is_said(importance: Importance, path: Path, tmp_path: Path) -> None:
    report = convert(SOURCE, tmp_path / "a.gguf", type="bf16", imatrix=path)
    assert any(text.startswith("the importance matrix changes nothing") for text in report.warnings)
    more = {**importance.sums, "blk.77.attn_q.weight": importance.sums["blk.0.attn_q.weight"]}
    write_imatrix(path, replace(importance, sums=more))
    report = convert(SOURCE, tmp_path / "b.gguf", type="q8_0", imatrix=path)
    expected = "the importance matrix has entries that this model has no use for: blk.77.attn_q.weight"
    assert expected in report.warnings


def test_of_another_model(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "other.gguf")
    with pytest.raises(ConversionError, match=r"other\.gguf: has .* for blk\.0\.attn_\w+\.weight, .* of another model"):
        convert(FOLDER / "llama-wide", tmp_path / "a.gguf", type="q8_0", imatrix=tmp_path / "other.gguf")
    sums = read_imatrix(path).sums
    write_imatrix(path, Importance({name: sums[name] for name in sums if "ffn_up" not in name}))
    shutil.copy(path, tmp_path / "other.gguf")
    with pytest.raises(ConversionError, match=r"other\.gguf: has nothing about blk\.0\.ffn_up_exps\.weight; is it of"):
        convert(SOURCE, tmp_path / "a.gguf", type="q8_0", imatrix=tmp_path / "other.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_a_threshold_needs_a_matrix(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="tokens per expert are those of an importance matrix: give one"):
        convert(SOURCE, tmp_path / "a.gguf", min_tokens_per_expert=5)


def test_the_older_form(importance: Importance, tmp_path: Path) -> None:
    entries = {name: (3, (3 * importance.of(name)).reshape(-1)) for name in importance.sums}
    (tmp_path / "i.dat").write_bytes(old_form(entries, old_tail(3, "/data/calm.txt")))
    report = convert(SOURCE, tmp_path / "a.gguf", type="q4_0", imatrix=tmp_path / "i.dat")
    assert not any("expert" in text and "tokens" in text for text in report.warnings)
    with GgufFile.open(tmp_path / "a.gguf") as file:
        assert file.metadata["quantize.imatrix.dataset"] == "calm.txt"
    fitted = read_imatrix(tmp_path / "i.dat").fitted(weights_of(SOURCE))
    for name, sums in importance.sums.items():
        pool = importance.of(name).mean(axis=0)
        expected = (importance.of(name) * 1536 + 64 * pool) / 1600 if sums.by_expert else importance.of(name)
        np.testing.assert_allclose(fitted.of(name), expected, rtol=1e-4)


def weights_of(folder: Path) -> list:
    source = open_source(folder)
    source.close()
    return [weight for weight in source.weights.values() if weight.role is not Role.VECTOR]
