import pytest
from edgert_models.errors import RequestError, UnsupportedError
from edgert_quant.blocks import BlockType, UnknownBlockTypeError
from gguf.constants import GGML_QUANT_SIZES


def test_sizes_agree_with_gguf_py() -> None:
    for other, (size, nbytes) in GGML_QUANT_SIZES.items():
        ours = BlockType(int(other))
        assert ours.name == other.name
        if ours is not BlockType.Q8_1:  # gguf-py still has the old 40 bytes; ggml's block_q8_1 has 36
            assert (ours.block_size, ours.block_bytes) == (size, nbytes), ours


def test_row_bytes_and_bits_per_weight() -> None:
    assert BlockType.Q4_K.row_bytes(2560) == 1440
    assert BlockType.Q4_K.row_bytes(0) == 0
    assert BlockType.Q6_K.bits_per_weight == 6.5625
    assert BlockType.F16.bits_per_weight == 16
    with pytest.raises(RequestError, match=r"a row of 300 weights cannot be stored as Q4_K: its blocks hold 256"):
        BlockType.Q4_K.row_bytes(300)
    with pytest.raises(RequestError, match="a row of -32 weights"):
        BlockType.Q8_0.row_bytes(-32)


def test_parse() -> None:
    assert BlockType.parse("q4_k") is BlockType.Q4_K
    assert BlockType.parse("IQ4_xs") is BlockType.IQ4_XS
    with pytest.raises(UnknownBlockTypeError, match=r"no tensor type is called 'q4_z'; there are f32, f16, q4_0"):
        BlockType.parse("q4_z")


def test_unknown_ids() -> None:
    assert BlockType(12) is BlockType.Q4_K
    with pytest.raises(UnsupportedError, match=r"tensor type 99 is unknown; GGUF has 0 \(F32\), 1 \(F16\)"):
        BlockType(99)
    with pytest.raises(UnsupportedError, match=r"tensor type 31 \(Q4_0_4_4\) was removed from GGUF"):
        BlockType(31)
