"""Checkpoints as they are found: one file or many, with or without an index, and how their tensors are read."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import EdgertError, FileFormatError, RequestError, UnsupportedError
from edgert_quant.checkpoint import Checkpoint, CheckpointTensor

from tests.support.hostile import safetensors

KINDS = {"f4": "F32", "f2": "F16", "f8": "F64", "i8": "I64", "i4": "I32", "u1": "U8", "b1": "BOOL", "u2": "BF16"}
GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def file_of(**tensors: np.ndarray) -> bytes:
    """A safetensors file; uint16 arrays are the bits of BF16."""
    header, data = {}, b""
    for name, array in tensors.items():
        end = len(data) + array.nbytes
        header[name] = {"dtype": KINDS[array.dtype.str[1:]], "shape": array.shape, "data_offsets": [len(data), end]}
        data += array.tobytes()
    return safetensors({"__metadata__": {"format": "pt"}, **header}, data)


def numbers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.fixture
def folder(tmp_path):
    def write(**files: bytes | object) -> Path:
        for name, content in {"config_json": {"model_type": "llama"}, **files}.items():
            path = tmp_path / name.replace("_json", ".json").replace("_safetensors", ".safetensors")
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return tmp_path

    return write


def sharded(folder, places, **shards):
    files = {f"model-{name}_safetensors": content for name, content in shards.items()}
    index = {"metadata": {}, "weight_map": {name: f"model-{place}.safetensors" for name, place in places.items()}}
    path = folder(**files)
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def test_a_folder_with_one_file(folder):
    weights = numbers(4, 3, 2)
    path = folder(
        model_safetensors=file_of(w=weights, scalar=np.array(2.5, np.float32), none=np.zeros((0, 3), np.float32))
    )
    with Checkpoint.open(path) as checkpoint:
        assert checkpoint.config == {"model_type": "llama"}
        assert checkpoint.folder == path
        tensor = checkpoint.tensors["w"]
        assert tensor == CheckpointTensor("w", "F32", (4, 3, 2), path / "model.safetensors", tensor.offset, 96)
        assert np.array_equal(checkpoint.read("w"), weights)
        assert np.array_equal(checkpoint.read("w", 1), weights[1:])
        assert np.array_equal(checkpoint.read("w", 1, 2), weights[1:3])
        assert np.array_equal(checkpoint.read_slice("w", 3), weights[3])
        assert np.array_equal(checkpoint.read_rows("w", 5, 4), weights.reshape(12, 2)[5:9])
        assert checkpoint.read("w", 4).shape == (0, 3, 2)
        assert checkpoint.read("none").shape == (0, 3)
        assert checkpoint.read("scalar").shape == ()
        assert checkpoint.read("scalar") == 2.5


def test_a_single_file_with_its_config_beside(folder):
    path = folder(weights_safetensors=file_of(w=numbers(2)))
    for source in (path / "weights.safetensors", path):  # the only one of its folder is found, whatever its name
        with Checkpoint.open(source) as checkpoint:
            assert checkpoint.config == {"model_type": "llama"}
            assert checkpoint.read("w").tolist() == [0, 1]


def test_one_layer_may_straddle_shards(folder):
    first, second = numbers(2, 3), numbers(2, 3) + 100
    path = sharded(
        folder, {"l.0.e.0": "a", "l.0.e.1": "b", "x": "b"}, a=file_of(**{"l.0.e.0": first}),
        b=file_of(**{"l.0.e.1": second, "x": numbers(1)}),
    )  # fmt: skip
    with Checkpoint.open(path) as checkpoint:
        assert set(checkpoint.tensors) == {"l.0.e.0", "l.0.e.1", "x"}
        assert np.array_equal(checkpoint.read("l.0.e.0"), first)
        assert np.array_equal(checkpoint.read_slice("l.0.e.1", 1), second[1])
        assert checkpoint.tensors["x"].file.name == "model-b.safetensors"


def test_the_index_decides_and_what_it_leaves_out_is_kept(folder):
    path = sharded(
        folder, {"w": "b", "v": "a"}, a=file_of(w=numbers(1), v=numbers(1), extra=numbers(3)), b=file_of(w=numbers(2))
    )
    with Checkpoint.open(path) as checkpoint:
        assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == {
            "w": (2,),
            "v": (1,),
            "extra": (3,),
        }


def test_types_become_float32(folder):
    values = np.array([0, 1, -2.5, 65504, 1e-7], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    path = folder(
        model_safetensors=file_of(
            f16=values.astype(np.float16),
            bf16=bits,
            f64=values.astype(np.float64),
            large=np.array([1e300, np.nan, -1e300]),
            i64=np.array([-1, 1 << 40]),
            i32=np.array([7, -7], np.int32),
            u8=np.array([0, 255], np.uint8),
            flag=np.array([True, False]),
        )
    )
    with Checkpoint.open(path) as checkpoint:
        for name in checkpoint.tensors:
            assert checkpoint.read(name).dtype == np.float32
        assert np.array_equal(checkpoint.read("f16"), values.astype(np.float16).astype(np.float32))
        assert np.array_equal(checkpoint.read("bf16").view(np.uint32), bits.astype(np.uint32) << 16)
        assert np.array_equal(checkpoint.read("f64"), values)
        assert checkpoint.read("large").tolist()[::2] == [np.inf, -np.inf]
        assert checkpoint.read("i64").tolist() == [-1, float(1 << 40)]
        assert checkpoint.read("i32").tolist() == [7, -7]
        assert checkpoint.read("u8").tolist() == [0, 255]
        assert checkpoint.read("flag").tolist() == [1, 0]
        assert checkpoint.read_raw("bf16").dtype == np.uint16
        assert np.array_equal(checkpoint.read_raw("bf16", 1, 2), bits[1:3])
        assert checkpoint.read_raw("i64").dtype == np.int64


def test_types_that_cannot_be_read_are_named(folder):
    header = {"c": {"dtype": "C64", "shape": [2], "data_offsets": [0, 16]}}
    with Checkpoint.open(folder(model_safetensors=safetensors(header, bytes(16)))) as checkpoint:
        with pytest.raises(UnsupportedError, match="tensor 'c' is stored as C64; edgert reads BOOL, U8, "):
            checkpoint.read("c")
        with pytest.raises(UnsupportedError, match="C64"):
            checkpoint.read_rows("c", 0, 1)


def test_wrong_requests_are_named(folder):
    path = folder(model_safetensors=file_of(w=numbers(3, 4), s=np.array(1, np.float32)))
    with Checkpoint.open(path) as checkpoint:
        for start, count in ((-1, None), (0, 4), (4, None), (2, -1)):
            with pytest.raises(RequestError, match="tensor 'w' has 3 entries on its first axis, not "):
                checkpoint.read("w", start, count)
        with pytest.raises(RequestError, match="tensor 'w' has 3 entries on its first axis, not 3 to 4"):
            checkpoint.read_slice("w", 3)
        with pytest.raises(RequestError, match="tensor 'w' has 3 rows, not 2 to 4"):
            checkpoint.read_rows("w", 2, 2)
        with pytest.raises(RequestError, match="tensor 's' is a scalar and has no entries"):
            checkpoint.read_slice("s", 0)
        with pytest.raises(FileFormatError, match="tensor 'no': is not in the checkpoint"):
            checkpoint.read("no")
    with pytest.raises(RequestError, match="the file is closed"):
        checkpoint.read("w")


def test_a_file_cut_after_opening(folder):
    path = folder(model_safetensors=file_of(w=numbers(1000)))
    with Checkpoint.open(path) as checkpoint:
        os.truncate(path / "model.safetensors", 2000)
        with pytest.raises(
            FileFormatError, match=r"tensor 'w': the file ends here, .* cut after it was opened"
        ) as caught:
            checkpoint.read("w")
        assert caught.value.offset == 2000


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "ckpt", "pkl"])
def test_pickles_are_refused_by_name(folder, suffix):
    path = folder(**{f"pytorch_model.{suffix}": b"anything"})
    for source in (path, path / f"pytorch_model.{suffix}"):
        with pytest.raises(
            UnsupportedError, match=rf"pytorch_model\.{suffix}: is a pickled checkpoint, and unpickling"
        ) as e:
            Checkpoint.open(source)
        assert "save the model as safetensors" in str(e.value)


@pytest.mark.parametrize("start", [b"PK\3\4\x14\0\0\0", b"\x80\x02}q\0.", b"\x80\x05\x95\x10\0\0\0\0\0\0\0"])
def test_pickles_are_refused_by_content(folder, start):
    with pytest.raises(UnsupportedError, match=r"model\.safetensors: is a pickled checkpoint"):
        Checkpoint.open(folder(model_safetensors=start + bytes(100)))


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0580])
def test_a_header_length_that_looks_like_a_pickle_is_none(folder, length):
    text = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    data = safetensors(text, bytes(4))
    assert data[0] == 0x80
    with Checkpoint.open(folder(model_safetensors=data)) as checkpoint:
        assert checkpoint.read("w").tolist() == [0]


def test_nothing_is_executed(folder, tmp_path):
    config = {"model_type": "x", "auto_map": {"AutoModel": "evil.Model"}}
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    path = folder(config_json=config, model_safetensors=file_of(w=numbers(1)))
    with Checkpoint.open(path) as checkpoint:
        assert checkpoint.config["auto_map"] == {"AutoModel": "evil.Model"}
    assert not (tmp_path / "ran").exists()


def test_files_beside(folder):
    path = folder(
        model_safetensors=file_of(w=numbers(1)), tokenizer_config_json=b"", **{"chat_template.jinja": "é".encode()}
    )
    (path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    with Checkpoint.open(path) as checkpoint:
        assert checkpoint.json("tokenizer_config.json") == {"bos_token": "<s>"}
        assert checkpoint.json("none.json") is None
        assert checkpoint.contents("chat_template.jinja") == "é".encode()
        assert checkpoint.contents("none") is None


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ([], "weight_map: is not an object of tensor names and files"),
        ({"weight_map": {}}, "weight_map: is not an object of tensor names and files"),
        ({"weight_map": {"w": 3}}, "tensor 'w': names '3', not a safetensors file of this folder"),
        ({"weight_map": {"w": "../model-a.safetensors"}}, "names '../model-a.safetensors', not a safetensors file"),
        ({"weight_map": {"w": "/etc/passwd.safetensors"}}, "names '/etc/passwd.safetensors', not a safetensors file"),
        ({"weight_map": {"w": "pytorch_model.bin"}}, "names 'pytorch_model.bin', not a safetensors file"),
        ({"weight_map": {"w": "model-b.safetensors"}}, "the shard is missing (1 of 1 are)"),
        ({"weight_map": {"v": "model-a.safetensors"}}, "tensor 'v': is not in model-a.safetensors"),
    ],
)
def test_wrong_indexes_are_refused(folder, index, reason):
    path = folder(**{"model-a_safetensors": file_of(w=numbers(1))})
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileFormatError) as caught:
        Checkpoint.open(path)
    assert reason in str(caught.value)


def test_a_tensor_twice_outside_the_index_is_refused(folder):
    path = sharded(
        folder, {"w": "a", "v": "b"}, a=file_of(w=numbers(1), x=numbers(1)), b=file_of(v=numbers(1), x=numbers(1))
    )
    with pytest.raises(
        FileFormatError, match=r"tensor 'x': is in model-a\.safetensors too, and the index names neither"
    ):
        Checkpoint.open(path)


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(RequestError, match=r"nothing: cannot be opened: No such file or directory"):
        Checkpoint.open(tmp_path / "nothing")
    with pytest.raises(
        FileFormatError, match=r"has no weights: neither model\.safetensors nor model\.safetensors\.index"
    ):
        Checkpoint.open(folder())
    path = folder(b_safetensors=file_of(w=numbers(1)), a_safetensors=file_of(w=numbers(1)))
    with pytest.raises(
        FileFormatError, match=r"has 2 safetensors files \(a\.safetensors, b\.safetensors, …\) and no model"
    ):
        Checkpoint.open(path)
    (path / "config.json").unlink()
    with pytest.raises(FileFormatError, match=r"config\.json: there is no such file, and a checkpoint needs one"):
        Checkpoint.open(path / "a.safetensors")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (b"[]", "is not a JSON object"),
        (b"{", "is not valid JSON: "),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is there twice"),
        (b'{"a": "\xff"}', "is not valid UTF-8"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "is nested more than 64 deep"),
        (b'{"a": ' + b"[" * 100_000, "is nested more than 64 deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is not valid JSON: Exceeds the limit"),
        (b'{"a": [' + b"[]," * 300_000 + b"0]}", "values and keys, above the limit of 500000"),
        (b" " * (5 << 20), "above the limit of 4194304 bytes (4.0 MiB)"),
    ],
)
def test_wrong_configs_are_refused(folder, config, reason):
    path = folder(model_safetensors=file_of(w=numbers(1)), config_json=config)
    with pytest.raises(FileFormatError) as caught:
        Checkpoint.open(path)
    assert caught.value.path == str(path / "config.json")
    assert reason in caught.value.reason


def test_configs_with_infinity_and_a_byte_order_mark_are_read(folder):
    path = folder(model_safetensors=file_of(w=numbers(1)), config_json=b'\xef\xbb\xbf{"limit": Infinity}')
    with Checkpoint.open(path) as checkpoint:
        assert checkpoint.config == {"limit": float("inf")}


def test_refusing_leaves_no_file_open(folder):
    path = folder(model_safetensors=file_of(w=numbers(1)), config_json=b"[")
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.glob("*")))
    for _ in range(10):
        with pytest.raises(EdgertError):
            Checkpoint.open(path)
    assert len(list(descriptors.glob("*"))) <= before


@pytest.mark.parametrize("name", ["llama", "qwen3moe-sharded"])
def test_what_transformers_saved(name):
    official = pytest.importorskip("safetensors")
    with Checkpoint.open(GOLDEN / name) as checkpoint:
        assert checkpoint.config["model_type"]
        files = {tensor.file for tensor in checkpoint.tensors.values()}
        expected = dict(pair for file in files for pair in official.deserialize(file.read_bytes()))
        assert set(expected) == set(checkpoint.tensors)
        for key, value in expected.items():
            assert list(checkpoint.tensors[key].shape) == value["shape"]
            assert checkpoint.tensors[key].dtype == value["dtype"]
            assert checkpoint.read_raw(key).tobytes() == bytes(value["data"])
