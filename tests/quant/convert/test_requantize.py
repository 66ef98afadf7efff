"""GGUF files as sources."""

from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import ConversionError, FileFormatError, RequestError
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufFile, GgufWriter, ValueType

from tests.support.golden import FOLDER


def contents(path: Path) -> dict[str, tuple[BlockType, bytes]]:
    with GgufFile.open(path) as file:
        return {name: (tensor.type, file.read(name).tobytes()) for name, tensor in file.tensors.items()}


@pytest.mark.parametrize("name", ["qwen3moe", "llama-llama3", "llama-wide", "mixtral", "qwen2moe"])
@pytest.mark.parametrize("recipe", ["q8_0", "q4_k_m", "bf16"])
def test_through_f32_is_the_same_as_directly(name: str, recipe: str, tmp_path: Path) -> None:
    convert(FOLDER / name, tmp_path / "direct.gguf", type=recipe)
    convert(FOLDER / name, tmp_path / "f32.gguf", type="f32")
    report = convert(tmp_path / "f32.gguf", tmp_path / "again.gguf", type=recipe)
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "direct.gguf").read_bytes()
    assert not report.warnings


def test_tensors_of_the_wanted_type_are_copied(tmp_path: Path) -> None:
    convert(FOLDER / "llama-wide", tmp_path / "a.gguf", type="q4_k_m")
    (tmp_path / "a.gguf").rename(tmp_path / "a")  # known by its first bytes
    report = convert(tmp_path / "a", tmp_path / "b.gguf", type="q4_k_m")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert any(text.startswith("the source is quantized already (Q4_K, Q5_0, Q6_K)") for text in report.warnings)


def test_few_bits_without_importance_are_warned_of(tmp_path: Path) -> None:
    """Unless the tensors are copied."""
    report = convert(FOLDER / "llama-wide", tmp_path / "a.gguf", type="iq2_s")
    assert report.warnings[-1] == (
        "quantized to IQ2_XS without importance: so few bits lose much; an importance matrix is advisable"
    )
    report = convert(tmp_path / "a.gguf", tmp_path / "b.gguf", type="iq2_s")
    assert not any("without importance" in text for text in report.warnings)
    report = convert(FOLDER / "llama-wide", tmp_path / "c.gguf", type="iq3_m", tensors=["blk.0.attn_q=iq1_m"])
    assert report.warnings[-1].startswith("quantized to IQ1_M without importance")
    assert contents(tmp_path / "c.gguf")["blk.0.attn_q.weight"][0] is BlockType.IQ1_M


def test_other_tensors_are_dequantized_first(tmp_path: Path) -> None:
    convert(FOLDER / "mistral", tmp_path / "a.gguf", type="q8_0")
    convert(tmp_path / "a.gguf", tmp_path / "b.gguf", type="f32")
    with GgufFile.open(tmp_path / "a.gguf") as a, GgufFile.open(tmp_path / "b.gguf") as b:
        assert {tensor.type for tensor in b.tensors.values()} == {BlockType.F32}
        for name, tensor in a.tensors.items():
            np.testing.assert_array_equal(
                dequantize(a.read(name), tensor.type), dequantize(b.read(name), BlockType.F32)
            )


def test_a_vector_that_another_program_stored_as_one_row(tmp_path: Path) -> None:
    convert(FOLDER / "qwen2moe", tmp_path / "a.gguf", type="f32")
    with GgufFile.open(tmp_path / "a.gguf") as file, GgufWriter(tmp_path / "b.gguf") as writer:
        assert file.tensors["blk.0.ffn_gate_inp_shexp.weight"].shape == (64,)
        for key in file.metadata:
            value_type = file.metadata.item_type(key) or file.metadata.value_type(key)
            writer.add_metadata(key, file.metadata[key], value_type)  # type: ignore[arg-type]
        for name, tensor in file.tensors.items():
            writer.add_tensor(name, tensor.type, (1, 64) if "gate_inp_shexp" in name else tensor.shape)
        writer.begin()
        for name in file.tensors:
            writer.write(name, file.read(name))
    convert(tmp_path / "b.gguf", tmp_path / "c.gguf", type="f32")
    assert (tmp_path / "c.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()


def add_things(source: Path, target: Path, *, tensor: bool = True) -> None:
    """A copy of a GGUF file with metadata of every type, and a tensor that no plan knows."""
    with GgufFile.open(source) as file, GgufWriter(target, alignment=64) as writer:
        for key in file.metadata:
            value_type = file.metadata.item_type(key) or file.metadata.value_type(key)
            writer.add_metadata(key, file.metadata[key], value_type)  # type: ignore[arg-type]
        writer.add_metadata("x.u8", 7, ValueType.UINT8)
        writer.add_metadata("x.f64", 0.1, ValueType.FLOAT64)
        writer.add_metadata("x.list", ["a", "ü"], ValueType.STRING)
        writer.add_metadata("x.ids", np.arange(3, dtype=np.int64))
        writer.add_metadata("x.empty", [], ValueType.INT16)
        writer.add_metadata("split.no", 0, ValueType.UINT16)
        writer.add_metadata("split.count", 1, ValueType.UINT16)
        writer.add_metadata("split.tensors.count", len(file.tensors) + tensor, ValueType.INT32)
        for own in file.tensors.values():
            writer.add_tensor(own.name, own.type, own.shape)
        if tensor:
            writer.add_tensor("blk.0.extra.weight", BlockType.I32, (3, 5))
        writer.begin()
        for name in file.tensors:
            writer.write(name, file.read(name))
        if tensor:
            writer.write("blk.0.extra.weight", np.arange(15, dtype=np.int32))


def test_metadata_and_unknown_tensors_are_kept(tmp_path: Path) -> None:
    convert(FOLDER / "mistral", tmp_path / "plain.gguf", type="f16")
    add_things(tmp_path / "plain.gguf", tmp_path / "source.gguf")
    report = convert(tmp_path / "source.gguf", tmp_path / "out.gguf", type="q8_0")
    assert "copied as they are, because edgert does not know them: blk.0.extra.weight" in report.warnings
    with GgufFile.open(tmp_path / "source.gguf") as source, GgufFile.open(tmp_path / "out.gguf") as out:
        kept = [key for key in source.metadata if not key.startswith("split.") and key != "general.alignment"]
        assert sorted(out.metadata) == sorted(kept)
        for key in set(kept) - {"general.file_type", "edgert.convert.recipe"}:
            assert np.array_equal(np.asarray(out.metadata[key]), np.asarray(source.metadata[key])), key
            assert out.metadata.value_type(key) is source.metadata.value_type(key)
            assert out.metadata.item_type(key) is source.metadata.item_type(key)
        assert out.metadata.integer("general.file_type") == 7
        assert out.alignment == 32
        assert out.tensors["blk.0.extra.weight"].type is BlockType.I32
        assert out.read("blk.0.extra.weight").tobytes() == source.read("blk.0.extra.weight").tobytes()


def test_what_is_refused(tmp_path: Path) -> None:
    convert(FOLDER / "llama", tmp_path / "model.gguf", type="q8_0")
    before = (tmp_path / "model.gguf").read_bytes()
    with pytest.raises(RequestError, match="is the source itself"):
        convert(tmp_path / "model.gguf", tmp_path / "model.gguf", type="q4_0")
    assert (tmp_path / "model.gguf").read_bytes() == before
    (tmp_path / "cut.gguf").write_bytes(before[:-100])
    with pytest.raises(FileFormatError, match=r"cut\.gguf"):
        convert(tmp_path / "cut.gguf", tmp_path / "out.gguf")
    with GgufWriter(tmp_path / "vocabulary.gguf") as writer:
        writer.add_metadata("general.architecture", "llama")
    with pytest.raises(FileFormatError, match="is missing from the metadata"):
        convert(tmp_path / "vocabulary.gguf", tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_missing_and_misshapen_tensors(tmp_path: Path) -> None:
    convert(FOLDER / "llama", tmp_path / "model.gguf", type="f32")
    for name, shape, message in (
        ("blk.1.ffn_up.weight", None, r"tensor blk.1.ffn_up.weight is missing"),
        ("blk.1.ffn_up.weight", (64, 64), r"tensor blk.1.ffn_up.weight has shape \[64, 64\], not \[96, 64\]"),
    ):
        with GgufFile.open(tmp_path / "model.gguf") as file, GgufWriter(tmp_path / "bad.gguf") as writer:
            for key, value in file.metadata.items():
                writer.add_metadata(key, value, file.metadata.value_type(key))  # type: ignore[arg-type]
            shapes = {own: tensor.shape for own, tensor in file.tensors.items()}
            if shape is None:
                del shapes[name]
            else:
                shapes[name] = shape
            for own, size in shapes.items():
                writer.add_tensor(own, BlockType.F32, size)
            writer.begin()
            for own, size in shapes.items():
                writer.write(own, bytes(4 * int(np.prod(size))))
        with pytest.raises(ConversionError, match=message):
            convert(tmp_path / "bad.gguf", tmp_path / "out.gguf", type="q8_0")


def test_numbers_in_a_file_are_checked_too(tmp_path: Path) -> None:
    convert(FOLDER / "llama", tmp_path / "model.gguf", type="f32")
    data = bytearray((tmp_path / "model.gguf").read_bytes())
    with GgufFile.open(tmp_path / "model.gguf") as file:
        tensor = file.tensors["blk.1.ffn_norm.weight"]
    data[tensor.offset + 8 : tensor.offset + 12] = np.float32(np.nan).tobytes()
    (tmp_path / "model.gguf").write_bytes(data)
    for recipe in ("f32", "q8_0"):
        with pytest.raises(ConversionError, match=r"tensor blk.1.ffn_norm.weight: the weight at \[2\] is nan"):
            convert(tmp_path / "model.gguf", tmp_path / "out.gguf", type=recipe)
