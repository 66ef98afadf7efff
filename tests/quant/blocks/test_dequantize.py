import numpy as np
import pytest
from edgert_models.errors import RequestError
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.blocks.layout import LAYOUTS
from edgert_quant.blocks.unpack import CHUNK_WEIGHTS
from gguf.constants import GGMLQuantizationType
from gguf.quants import _type_traits
from gguf.quants import dequantize as gguf_dequantize
from numpy.typing import NDArray

SEEN_BY_GGUF_PY = sorted(BlockType(int(t)) for t in _type_traits)


def random_blocks(kind: BlockType, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random bytes whose half-precision fields are finite."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, kind.block_bytes), np.uint8)
    layout = LAYOUTS.get(kind)
    if layout is not None:
        for name in layout.names or ():
            if layout[name] == np.float16:
                blocks.view(layout)[name] = np.random.default_rng(seed + 1).normal(size=(count, 1)) * 3
    return blocks


def test_layouts_have_the_bytes_of_their_types() -> None:
    for kind, layout in LAYOUTS.items():
        assert layout.itemsize == kind.block_bytes


@pytest.mark.parametrize("kind", SEEN_BY_GGUF_PY, ids=lambda t: t.name)
def test_bits_equal_gguf_py(kind: BlockType) -> None:
    rows = random_blocks(kind, 7 * 9).reshape(7, -1)
    if kind in (BlockType.IQ1_M, BlockType.TQ1_0, BlockType.TQ2_0) or kind.name.startswith(("IQ1", "IQ2", "IQ3")):
        rows = np.minimum(rows, 0x7B)  # no NaN can hide in a half-precision scale
    with np.errstate(all="ignore"):
        theirs = gguf_dequantize(rows, GGMLQuantizationType(int(kind)))
    ours = dequantize(rows, kind)
    assert ours.dtype == np.float32
    assert ours.shape == (7, 9 * kind.block_size)
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (BlockType.F32, "<f4"),
        (BlockType.F16, "<f2"),
        (BlockType.F64, "<f8"),
        (BlockType.I8, "i1"),
        (BlockType.I16, "<i2"),
        (BlockType.I32, "<i4"),
        (BlockType.I64, "<i8"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_plain_numbers(kind: BlockType, dtype: str) -> None:
    values = np.array([[0, 1, -2, 100], [3, -128, 127, 64]], dtype)
    np.testing.assert_array_equal(dequantize(values.view(np.uint8), kind), values.astype(np.float32))


def test_types_gguf_py_does_not_unpack() -> None:
    """Worked by hand from the layouts: one bit, two bits, and the two 8-bit types of kernels."""
    d = np.array([0.5], "<f2").tobytes()
    one_bit = np.frombuffer(d + bytes([0b101]) + bytes(15), np.uint8)
    assert dequantize(one_bit, BlockType.Q1_0)[:4].tolist() == [0.5, -0.5, 0.5, -0.5]
    two_bit = np.frombuffer(d + bytes([0b11_10_01_00]) + bytes(15), np.uint8)
    assert dequantize(two_bit, BlockType.Q2_0)[:5].tolist() == [-0.5, 0, 0.5, 1.0, -0.5]
    q8_1 = np.frombuffer(d + d + bytes([255, 2]) + bytes(30), np.uint8)
    assert dequantize(q8_1, BlockType.Q8_1)[:3].tolist() == [-0.5, 1.0, 0]
    q8_k = np.frombuffer(np.array([0.25], "<f4").tobytes() + bytes([255, 2]) + bytes(254 + 32), np.uint8)
    assert dequantize(q8_k, BlockType.Q8_K)[:3].tolist() == [-0.25, 0.5, 0]


def test_chunks_shapes_and_strides_do_not_matter() -> None:
    kind = BlockType.Q4_K
    count = 2 * CHUNK_WEIGHTS // 256 + 3
    blocks = random_blocks(kind, count)
    whole = dequantize(blocks.reshape(-1), kind)
    np.testing.assert_array_equal(whole.reshape(count, 256), dequantize(blocks, kind))
    wide = np.zeros((count, 200), np.uint8)
    wide[:, :144] = blocks
    np.testing.assert_array_equal(whole.reshape(count, 256), dequantize(wide[:, :144], kind))
    assert dequantize(np.zeros((0, 288), np.uint8), kind).shape == (0, 512)
    assert dequantize(np.zeros((2, 3, 288), np.uint8), kind).shape == (2, 3, 512)


def test_non_finite_scales_are_no_error() -> None:
    block = np.full((1, 34), 255, np.uint8)
    assert np.isnan(dequantize(block, BlockType.Q8_0)).all()
    block[0, :2] = [0x00, 0x7C]
    assert np.isinf(dequantize(block, BlockType.Q8_0)).all()


def test_refusals() -> None:
    with pytest.raises(RequestError, match=r"Q4_K is unpacked from rows of uint8 in blocks of 144 bytes, not"):
        dequantize(np.zeros((2, 145), np.uint8), BlockType.Q4_K)
    with pytest.raises(RequestError, match=r"not from float32 \[144\]"):
        dequantize(np.zeros(144, np.float32), BlockType.Q4_K)  # type: ignore[arg-kind]
