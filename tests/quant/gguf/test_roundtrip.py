"""What the writer writes, our reader and gguf-py read alike; what gguf-py writes, our reader reads."""

import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import numpy as np
import pytest
from edgert_quant.blocks.types import BlockType
from edgert_quant.gguf import GgufFile, GgufWriter, ValueType
from hypothesis import given, settings
from hypothesis import strategies as st

INTEGERS = {
    ValueType.UINT8: (0, 255),
    ValueType.INT8: (-128, 127),
    ValueType.UINT16: (0, 65_535),
    ValueType.INT16: (-32_768, 32_767),
    ValueType.UINT32: (0, (1 << 32) - 1),
    ValueType.INT32: (-(1 << 31), (1 << 31) - 1),
    ValueType.UINT64: (0, (1 << 64) - 1),
    ValueType.INT64: (-(1 << 63), (1 << 63) - 1),
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS: dict[ValueType, st.SearchStrategy[object]] = {
    **{kind: st.integers(*limits) for kind, limits in INTEGERS.items()},
    ValueType.FLOAT32: st.floats(width=32, allow_nan=False),
    ValueType.FLOAT64: st.floats(allow_nan=False),
    ValueType.BOOL: st.booleans(),
    ValueType.STRING: TEXT,
}
VALUES = st.sampled_from(list(SCALARS)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.one_of(SCALARS[kind], st.lists(SCALARS[kind], max_size=6)))
)
METADATA = st.dictionaries(TEXT.filter(lambda key: key and key != "general.alignment"), VALUES, max_size=12)
TYPES = [BlockType.F32, BlockType.F16, BlockType.BF16, BlockType.Q8_0, BlockType.Q4_K, BlockType.MXFP4, BlockType.I64]
TENSORS = st.dictionaries(
    TEXT.filter(lambda name: name and len(name.encode()) < 64),
    st.tuples(st.sampled_from(TYPES), st.lists(st.integers(1, 3), min_size=0, max_size=3), st.integers(1, 2)),
    max_size=6,
)


def plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value


@settings(max_examples=150, deadline=None)
@given(METADATA, TENSORS, st.sampled_from([1, 8, 32, 256]), st.integers(1, 200))
def test_our_reader_reads_our_writer(metadata, tensors, alignment, piece):
    data = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        with GgufWriter(path, alignment) as writer:
            for key, (kind, value) in metadata.items():
                writer.add_metadata(key, value, kind)
            for name, (kind, outer, blocks) in tensors.items():
                shape = (*outer, blocks * kind.block_size)
                writer.add_tensor(name, kind, shape)
                size = int(np.prod(outer, dtype=int)) * blocks * kind.block_bytes
                data[name] = np.random.default_rng(len(data)).integers(0, 256, size, np.uint8)
            writer.begin()
            for name, bits in data.items():
                for start in range(0, len(bits), piece):
                    writer.write(name, bits[start : start + piece])
        with GgufFile.open(path) as file:
            assert file.alignment == alignment
            found = {key: value for key, value in file.metadata.items() if key != "general.alignment"}
            assert list(found) == list(metadata)
            for key, (kind, value) in metadata.items():
                assert plain(found[key]) == value
                types = (ValueType.ARRAY, kind) if isinstance(value, list) else (kind, None)
                assert (file.metadata.value_type(key), file.metadata.item_type(key)) == types
            assert list(file.tensors) == list(tensors)
            for name, (kind, outer, blocks) in tensors.items():
                tensor = file.tensors[name]
                assert (tensor.type, tensor.shape) == (kind, (*outer, blocks * kind.block_size))
                assert tensor.offset % alignment == 0
                assert file.read(name).tobytes() == data[name].tobytes()
            end = max((tensor.offset + tensor.nbytes for tensor in file.tensors.values()), default=0)
            assert path.stat().st_size >= end


def test_gguf_py_reads_our_writer(tmp_path):
    path = tmp_path / "x.gguf"
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, 5, 64)).astype(np.float32)
    values = {kind: limits[0] for kind, limits in INTEGERS.items()}
    with GgufWriter(path) as writer:
        writer.add_metadata("general.architecture", "llama")
        for kind, value in values.items():
            writer.add_metadata(f"one.{kind.name}", value, kind)
            writer.add_metadata(f"many.{kind.name}", list(INTEGERS[kind]), kind)
        writer.add_metadata("float", 0.1)
        writer.add_metadata("double", 0.1, ValueType.FLOAT64)
        writer.add_metadata("floats", np.array([1.5, 2.5], np.float32))
        writer.add_metadata("flag", True)
        writer.add_metadata("flags", [True, False])
        writer.add_metadata("text", "naïve 𝄞")
        writer.add_metadata("texts", ["a", "", "é"])
        writer.add_tensor("w", BlockType.F32, weights.shape)
        writer.add_tensor("half", BlockType.F16, (7,))
        writer.add_tensor("q", BlockType.Q8_0, (2, 2, 64))
        writer.begin()
        for expert in weights:
            writer.write("w", expert)
        writer.write("half", np.arange(7, dtype=np.float16))
        quantized = gguf.quants.quantize(weights[:2, :2], gguf.GGMLQuantizationType.Q8_0)
        writer.write("q", quantized[0])
        writer.write("q", quantized[1])
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert fields == {
        "general.architecture": "llama",
        **{f"one.{kind.name}": value for kind, value in values.items()},
        **{f"many.{kind.name}": list(limits) for kind, limits in INTEGERS.items()},
        "float": float(np.float32(0.1)),
        "double": 0.1,
        "floats": [1.5, 2.5],
        "flag": True,
        "flags": [True, False],
        "text": "naïve 𝄞",
        "texts": ["a", "", "é"],
    }
    for kind in INTEGERS:
        assert reader.fields[f"one.{kind.name}"].types == [gguf.GGUFValueType(kind.value)]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert np.array_equal(tensors["w"].data, weights)
    assert np.array_equal(tensors["half"].data, np.arange(7, dtype=np.float16))
    assert tensors["q"].tensor_type is gguf.GGMLQuantizationType.Q8_0
    assert tensors["q"].shape.tolist() == [64, 2, 2]
    assert np.array_equal(tensors["q"].data, quantized)


@pytest.mark.parametrize("alignment", [None, 64])
def test_our_reader_reads_gguf_py(tmp_path, alignment):
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    expected: dict[str, object] = {"general.architecture": "llama"}
    if alignment:
        expected["general.alignment"] = alignment
    for kind, (low, high) in INTEGERS.items():
        writer.add_key_value(f"one.{kind.name}", high, gguf.GGUFValueType(kind.value))
        expected[f"one.{kind.name}"] = high
        writer.add_key_value(f"many.{kind.name}", [low, high], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType(kind.value))
        expected[f"many.{kind.name}"] = [low, high]
    for key, value in {"flag": False, "text": "ü" * 300, "texts": ["", "b\0b"], "flags": [True, False]}.items():
        kind_of = {bool: gguf.GGUFValueType.BOOL, str: gguf.GGUFValueType.STRING}.get(type(value))
        writer.add_key_value(key, value, kind_of or gguf.GGUFValueType.ARRAY)
        expected[key] = value
    writer.add_float64("double", 0.1)
    writer.add_float32("float", 0.5)
    expected |= {"double": 0.1, "float": 0.5}
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((2, 3, 256)).astype(np.float32)
    quantized = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("w", weights)
    writer.add_tensor("half", weights.astype(np.float16))
    writer.add_tensor("q", quantized, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("odd", np.arange(5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GgufFile.open(path) as file:
        assert file.alignment == (alignment or 32)
        assert {key: plain(value) for key, value in file.metadata.items()} == expected
        for kind in INTEGERS:
            assert file.metadata.value_type(f"one.{kind.name}") is kind
            assert file.metadata.item_type(f"many.{kind.name}") is kind
        assert {name: (tensor.type, tensor.shape) for name, tensor in file.tensors.items()} == {
            "w": (BlockType.F32, (2, 3, 256)),
            "half": (BlockType.F16, (2, 3, 256)),
            "q": (BlockType.Q4_0, (2, 3, 256)),
            "odd": (BlockType.F32, (5,)),
        }
        assert np.array_equal(file.read("w").view(np.float32).reshape(2, 3, 256), weights)
        assert np.array_equal(file.read("q").reshape(quantized.shape), quantized)
        assert struct.unpack("<5f", file.read("odd").tobytes()) == (0, 1, 2, 3, 4)
