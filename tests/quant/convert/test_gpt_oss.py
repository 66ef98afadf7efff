"""Checkpoints of gpt-oss: gates and ups in turns, transposed, or in MXFP4 and kept to the bit."""

from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import ConversionError, FileFormatError
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.checkpoint import Checkpoint
from edgert_quant.checkpoint.mxfp4 import repack
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufFile

from tests.quant.convert.checkpoints import load, save
from tests.support.golden import FOLDER

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
EXPERTS = [f"blk.{layer}.ffn_{part}_exps.weight" for layer in range(2) for part in ("gate", "up", "down")]


def decoded(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """What transformers makes of codes [..., blocks, 16] and exponents [..., blocks]."""
    values = np.empty((*blocks.shape[:-1], 32), np.float32)
    values[..., ::2], values[..., 1::2] = E2M1[blocks & 15], E2M1[blocks >> 4]
    return np.ldexp(values, scales[..., None].astype(np.int32) - 127).reshape(*blocks.shape[:-2], -1)


def read(path: Path, name: str) -> np.ndarray:
    with GgufFile.open(path) as file:
        tensor = file.tensors[name]
        return dequantize(file.read(name), tensor.type).reshape(tensor.shape)


def types(path: Path) -> dict[str, BlockType]:
    with GgufFile.open(path) as file:
        return {name: tensor.type for name, tensor in file.tensors.items()}


def test_repacked_blocks_are_the_same_numbers() -> None:
    rng = np.random.default_rng(1)
    blocks, scales = rng.integers(0, 256, (40, 3, 16), np.uint8), rng.integers(1, 254, (40, 3), np.uint8)
    packed = repack(blocks, scales)
    assert packed.shape == (40, BlockType.MXFP4.row_bytes(96))
    np.testing.assert_array_equal(dequantize(packed, BlockType.MXFP4), decoded(blocks, scales))


def test_transposed_experts(tmp_path: Path) -> None:
    convert(FOLDER / "gpt-oss", tmp_path / "model.gguf", type="bf16")
    tensors = load(FOLDER / "gpt-oss")
    for layer in range(2):
        block, own = f"blk.{layer}", f"model.layers.{layer}.mlp.experts"
        both, down = (tensors[f"{own}.{name}"].swapaxes(1, 2) for name in ("gate_up_proj", "down_proj"))
        wanted = {
            "gate_exps.weight": both[:, ::2],
            "up_exps.weight": both[:, 1::2],
            "down_exps.weight": down,
            "gate_exps.bias": tensors[f"{own}.gate_up_proj_bias"][:, ::2],
            "up_exps.bias": tensors[f"{own}.gate_up_proj_bias"][:, 1::2],
            "down_exps.bias": tensors[f"{own}.down_proj_bias"],
            "gate_inp.bias": tensors[f"model.layers.{layer}.mlp.router.bias"],
        }
        for name, values in wanted.items():
            np.testing.assert_array_equal(read(tmp_path / "model.gguf", f"{block}.ffn_{name}"), values)
        sinks = tensors[f"model.layers.{layer}.self_attn.sinks"]
        np.testing.assert_array_equal(read(tmp_path / "model.gguf", f"{block}.attn_sinks.weight"), sinks)


@pytest.mark.parametrize("recipe", ["f32", "q8_0", "q4_k_m"])
def test_mxfp4_stays_in_every_mix(recipe: str, tmp_path: Path) -> None:
    convert(FOLDER / "gpt-oss-mxfp4", tmp_path / "model.gguf", type=recipe)
    found = types(tmp_path / "model.gguf")
    assert {found[name] for name in EXPERTS} == {BlockType.MXFP4}
    assert {kind for name, kind in found.items() if "exps.bias" in name or "gate_inp" in name} == {BlockType.F32}
    assert found["blk.1.attn_q.weight"] is {"f32": BlockType.F32, "q8_0": BlockType.Q8_0}.get(recipe, BlockType.Q5_0)
    with Checkpoint.open(FOLDER / "gpt-oss-mxfp4") as checkpoint:
        for layer in range(2):
            own = f"model.layers.{layer}.mlp.experts"
            both, down = (
                decoded(checkpoint.read_raw(f"{own}.{name}_blocks"), checkpoint.read_raw(f"{own}.{name}_scales"))
                for name in ("gate_up_proj", "down_proj")
            )
            for part, values in (("gate", both[:, ::2]), ("up", both[:, 1::2]), ("down", down)):
                np.testing.assert_array_equal(
                    read(tmp_path / "model.gguf", f"blk.{layer}.ffn_{part}_exps.weight"), values
                )


def test_without_a_type_everything_stays(tmp_path: Path) -> None:
    report = convert(FOLDER / "gpt-oss-mxfp4", tmp_path / "model.gguf")
    assert report.recipe == "native"
    assert not report.losses
    found = types(tmp_path / "model.gguf")
    assert {found[name] for name in EXPERTS} == {BlockType.MXFP4}
    assert found["blk.1.attn_q.weight"] is found["token_embd.weight"] is BlockType.BF16
    convert(FOLDER / "gpt-oss-mxfp4", tmp_path / "kept.gguf", type="bf16")
    for name in EXPERTS:
        np.testing.assert_array_equal(read(tmp_path / "model.gguf", name), read(tmp_path / "kept.gguf", name))


def test_mxfp4_stays_when_a_file_is_quantized(tmp_path: Path) -> None:
    convert(FOLDER / "gpt-oss-mxfp4", tmp_path / "first.gguf", type="bf16")
    report = convert(tmp_path / "first.gguf", tmp_path / "model.gguf", type="q8_0")
    assert not any("quantized already" in warning for warning in report.warnings)
    found = types(tmp_path / "model.gguf")
    assert {found[name] for name in EXPERTS} == {BlockType.MXFP4}
    assert found["blk.1.attn_q.weight"] is BlockType.Q8_0
    for name in EXPERTS:
        np.testing.assert_array_equal(read(tmp_path / "model.gguf", name), read(tmp_path / "first.gguf", name))


def test_a_rule_changes_mxfp4(tmp_path: Path) -> None:
    convert(FOLDER / "gpt-oss-mxfp4", tmp_path / "kept.gguf", type="q8_0")
    convert(FOLDER / "gpt-oss-mxfp4", tmp_path / "model.gguf", type="q8_0", tensors=["blk.0.ffn_*_exps=f16"])
    found = types(tmp_path / "model.gguf")
    assert [found[name] for name in EXPERTS] == [BlockType.F16] * 3 + [BlockType.MXFP4] * 3
    np.testing.assert_array_equal(read(tmp_path / "model.gguf", EXPERTS[1]), read(tmp_path / "kept.gguf", EXPERTS[1]))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    config = FOLDER / "gpt-oss/config.json"
    tensors = load(FOLDER / "gpt-oss")
    name = "model.layers.1.mlp.experts.down_proj"
    down = tensors.pop(name)
    with pytest.raises(ConversionError, match=f"no tensor {name} or {name}_blocks, needed for blk.1.ffn_down_exps"):
        convert(save(tmp_path / "none", tensors, config), tmp_path / "model.gguf")
    changed = {**tensors, name: down[:, :, :-1]}
    with pytest.raises(ConversionError, match=rf"{name} has shape \[4, 32, 63\], and config.json says \[4, 32, 64\]"):
        convert(save(tmp_path / "short", changed, config), tmp_path / "model.gguf")
    changed = {**tensors, f"{name}_blocks": np.zeros((4, 64, 1, 16), np.float32)}
    quantized = FOLDER / "gpt-oss-mxfp4/config.json"
    with pytest.raises(FileFormatError, match=rf"{name}_blocks is F32 \[4, 64, 1, 16\], not blocks of 16 bytes \(U8\)"):
        convert(save(tmp_path / "floats", changed, quantized), tmp_path / "model.gguf")
    tensors[f"{name}_bias"] = tensors[f"{name}_bias"][:3]
    with pytest.raises(ConversionError, match=rf"{name}_bias has shape \[3, 64\], and config.json says \[4, 64\]"):
        convert(save(tmp_path / "bias", {**tensors, name: down}, config), tmp_path / "model.gguf")
