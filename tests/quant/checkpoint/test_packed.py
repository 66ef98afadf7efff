"""Quantized checkpoints as the tools that write them lay them out, read to the bit (`packed/make.py`)."""

from pathlib import Path

import numpy as np
import pytest
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.checkpoint import Checkpoint, View, open_views
from edgert_quant.checkpoint.integers import unpack_words

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
