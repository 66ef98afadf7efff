"""Quantized checkpoints as the tools that write them lay them out, read to the bit (`packed/make.py`)."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import FileFormatError, RequestError, UnsupportedError
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.checkpoint import Checkpoint, View, open_views
from edgert_quant.checkpoint.dtypes import BITS, STORAGE
from edgert_quant.checkpoint.integers import IntegerView, unpack_words

from tests.quant.convert.quantized import Stored as Tensors
from tests.quant.convert.quantized import write

FOLDER = Path(__file__).parent / "packed"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__")
CENTRED = (BlockType.Q4_0, BlockType.Q4_1, BlockType.Q5_0, BlockType.Q8_0)
TYPES = {
    "int4-g32": CENTRED,
    "int4-g64-zeros": (BlockType.Q5_0, BlockType.Q8_0),
    "int4-g32-zeros-bf16": (BlockType.Q5_0, BlockType.Q8_0),
    "int8": (BlockType.Q8_0,),
    "int8-packed": (BlockType.Q8_0,),
    "mxfp4": (BlockType.MXFP4,),
    "gptq-4": CENTRED,
    "gptq-4-zeros": (BlockType.Q5_0, BlockType.Q8_0),
    "gptq-8": (BlockType.Q8_0,),
    "awq": (BlockType.Q5_0, BlockType.Q8_0),
}
REASONS = {
    "gptq-4-order": "columns are grouped by activation, not side by side",
    "gptq-8-zeros": "zero points of 83 to 153 make codes of more than eight bits",
    **dict.fromkeys(("fp8-blocks", "fp8-fused", "fp8-channel", "fp8-tensor"), "GGUF has no eight-bit floats"),
}


def quantized(checkpoint: Checkpoint) -> View:
    (view,) = (view for view in open_views(checkpoint).values() if view.quantized)
    return view


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_the_tool(name: str) -> None:
    with Checkpoint.open(FOLDER / name) as checkpoint, np.load(FOLDER / name / "expected.npz") as expected:
        views = open_views(checkpoint)
        for key in expected:
            wanted = expected[key].reshape(-1, expected[key].shape[-1])
            assert views[key].shape == expected[key].shape
            np.testing.assert_array_equal(views[key].rows(0, len(wanted)), wanted)
        view = quantized(checkpoint)
        wanted = expected[view.name].reshape(-1, view.shape[-1])
        for start, count in ((0, 1), (3, 5), (len(wanted) - 9, 9)):
            np.testing.assert_array_equal(view.rows(start, count), wanted[start : start + count])


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_the_same_numbers(name: str) -> None:
    with Checkpoint.open(FOLDER / name) as checkpoint:
        view = quantized(checkpoint)
        assert view.types == TYPES.get(name, ())
        assert view.reason == REASONS.get(name, "")
        rows = int(np.prod(view.shape[:-1]))
        wanted = view.rows(0, rows)
        for kind in view.types:
            data = view.packed(0, rows, kind)
            assert data is not None
            assert data.shape == (rows, kind.row_bytes(view.shape[-1]))
            np.testing.assert_array_equal(dequantize(data, kind), wanted)
            np.testing.assert_array_equal(view.packed(5, 11, kind), data[5:16])
        for kind in (BlockType.Q4_K, BlockType.F16, *(kind for kind in CENTRED if kind not in view.types)):
            assert view.packed(0, rows, kind) is None


def test_all_others_are_plain() -> None:
    with Checkpoint.open(FOLDER / "int4-g32") as checkpoint:
        views = open_views(checkpoint)
        assert set(views) == {"a.weight", "lm_head.weight"}
        assert views["a.weight"].used == {"a.weight_packed", "a.weight_scale", "a.weight_shape"}
        assert not views["lm_head.weight"].quantized
        assert (views["lm_head.weight"].form, views["lm_head.weight"].types) == ("BF16", (BlockType.BF16,))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_words(bits: int) -> None:
    words = np.random.default_rng(bits).integers(-(2**31), 2**31, (3, 5), dtype=np.int32)
    found = unpack_words(words, bits)
    each = 32 // bits
    wanted = [[(int(row[i // each]) >> bits * (i % each)) & (2**bits - 1) for i in range(5 * each)] for row in words]
    np.testing.assert_array_equal(found, wanted)


def edited(folder: Path, name: str, change: Callable[[Tensors], object]) -> Path:
    """A copy of one of the checkpoints after `change(tensors)`."""
    with Checkpoint.open(FOLDER / name) as checkpoint:
        tensors = {key: (tensor.dtype, checkpoint.read_raw(key)) for key, tensor in checkpoint.tensors.items()}
        change(tensors)
        return write(folder, tensors, checkpoint.config)


def test_columns_by_activation_in_compressed_tensors(tmp_path: Path) -> None:
    order = np.random.default_rng(3).permutation(np.arange(128) // 32).astype("<i4")
    with Checkpoint.open(FOLDER / "int4-g32") as checkpoint:
        view = quantized(checkpoint)
        assert isinstance(view, IntegerView)
        wanted = (view.codes(0, 64).astype(np.float32) - 8) * view.scales(0, 64)[:, order]
    for groups, exact in ((order, False), (np.full(128, -1, "<i4"), True)):
        path = edited(tmp_path / str(exact), "int4-g32", lambda t, g=groups: t.update({"a.weight_g_idx": ("I32", g)}))
        with Checkpoint.open(path) as checkpoint, np.load(FOLDER / "int4-g32/expected.npz") as expected:
            view = quantized(checkpoint)
            np.testing.assert_array_equal(view.rows(0, 64), expected["a.weight"] if exact else wanted)
            assert (view.types == ()) is not exact
            assert "a.weight_g_idx" in view.used


def test_zero_points_of_earlier_compressed_tensors(tmp_path: Path) -> None:
    """They were int8 [out, groups], from -8 to 7."""

    def unpack(tensors: Tensors) -> None:
        _, words = tensors["a.weight_zero_point"]
        tensors["a.weight_zero_point"] = ("I8", (unpack_words(words.T, 4).T.astype(np.int16) - 8).astype("i1"))

    path = edited(tmp_path / "early", "int4-g64-zeros", unpack)
    with Checkpoint.open(path) as checkpoint, np.load(FOLDER / "int4-g64-zeros/expected.npz") as expected:
        view = quantized(checkpoint)
        np.testing.assert_array_equal(view.rows(0, 64), expected["a.weight"])
        assert view.types == TYPES["int4-g64-zeros"]


def test_scales_that_are_no_halves(tmp_path: Path) -> None:
    def widen(tensors: Tensors) -> None:
        scale = (tensors["a.weight_scale"][1].astype(np.uint32) << 16).view(np.float32).copy()
        scale[63, 1] = 1e-9
        tensors["a.weight_scale"] = ("F32", scale)

    with Checkpoint.open(edited(tmp_path / "small", "int4-g32", widen)) as checkpoint:
        assert quantized(checkpoint).types == ()
        assert quantized(checkpoint).reason == "its scales are no numbers of half precision"


def test_an_exponent_that_is_no_number(tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors["a.weight_scale"][1][5, 2] = 255

    with Checkpoint.open(edited(tmp_path / "nan", "mxfp4", spoil)) as checkpoint:
        view = quantized(checkpoint)
        assert view.packed(0, 5, BlockType.MXFP4) is not None
        with pytest.raises(FileFormatError, match=r"'a.weight_scale': an exponent is 255, which stands for no number"):
            view.packed(4, 2, BlockType.MXFP4)


def test_columns_of_a_matrix() -> None:
    with Checkpoint.open(FOLDER / "awq") as checkpoint:
        whole = checkpoint.read_raw("a.qweight")
        for start, count in ((0, 8), (3, 4), (7, 1), (2, 0)):
            found = checkpoint.read_columns("a.qweight", start, count)
            np.testing.assert_array_equal(found, whole[:, start : start + count])
        with pytest.raises(RequestError, match=r"tensor 'a.qweight' has 8 columns, not 5 to 9"):
            checkpoint.read_columns("a.qweight", 5, 4)


@pytest.mark.parametrize("name", NAMES)
def test_headers_with_other_numbers_load_or_are_refused(name: str, tmp_path: Path) -> None:
    """Shapes, types and names that do not belong together: a typed error, or views that can be read."""
    rng = random.Random(name)
    with Checkpoint.open(FOLDER / name) as checkpoint:
        stored = {key: (tensor.dtype, checkpoint.read_raw(key)) for key, tensor in checkpoint.tensors.items()}
        config = checkpoint.config
    refused = 0
    for _ in range(40):
        tensors = dict(stored)
        key = rng.choice(list(tensors))
        dtype, array = tensors.pop(key)
        size = array.itemsize
        change = rng.randrange(4)
        if change == 0 and array.size % 2 == 0:
            tensors[key] = (dtype, array.reshape(rng.choice([(-1,), (1, -1), (-1, 1), (2, -1), (2, 1, -1)])))
        elif change == 1:
            tensors[key] = (rng.choice([kind for kind in STORAGE if BITS[kind] == 8 * size and kind != "BOOL"]), array)
        elif change == 2:
            tensors[key] = (dtype, array[: rng.randrange(len(array))] if array.ndim else np.zeros(0, array.dtype))
        try:
            with Checkpoint.open(write(tmp_path / "changed", tensors, config)) as opened:
                for view in open_views(opened).values():
                    if view.quantized:
                        view.rows(0, 1)
                        assert isinstance(view.types, tuple)
        except (FileFormatError, UnsupportedError):
            refused += 1
    assert refused > 5
