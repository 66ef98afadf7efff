"""Checkpoints that are quantized already: what is kept to the bit, what it costs where it is not, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import ConversionError, FileFormatError, UnsupportedError
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.convert import convert, pipeline
from edgert_quant.gguf import GgufFile

from tests.quant.convert.checkpoints import Tensors
from tests.quant.convert.quantized import (
    COMPRESSED,
    FORMS,
    FP8,
    GPTQ,
    Pack,
    Stored,
    any_points,
    bfloat16,
    eights,
    fp8,
    gptq,
    quantized,
    symmetric,
    write,
)
from tests.quant.convert.test_checkpoints import experts_of

EXPERTS = "blk.1.ffn_down_exps.weight"
DOWN = "model.layers.1.mlp.experts.3.down_proj"


def types(path: Path) -> dict[str, BlockType]:
    with GgufFile.open(path) as file:
        return {name: tensor.type for name, tensor in file.tensors.items()}


def floats(path: Path, name: str) -> np.ndarray:
    with GgufFile.open(path) as file:
        tensor = file.tensors[name]
        return dequantize(file.read(name), tensor.type).reshape(tensor.shape)


def check_weights(path: Path, weights: Tensors) -> None:
    """That the file holds these weights to the bit."""
    for layer in range(2):
        experts = len(floats(path, f"blk.{layer}.ffn_down_exps.weight"))
        wanted = experts_of(weights, layer, experts)
        for part, own in zip(("gate", "up", "down"), wanted, strict=True):
            np.testing.assert_array_equal(floats(path, f"blk.{layer}.ffn_{part}_exps.weight"), own)
        own = weights[f"model.layers.{layer}.self_attn.v_proj.weight"]
        np.testing.assert_array_equal(floats(path, f"blk.{layer}.attn_v.weight"), own)
    for name, own in (("token_embd", "model.embed_tokens"), ("output_norm", "model.norm")):
        np.testing.assert_array_equal(floats(path, f"{name}.weight"), weights[f"{own}.weight"])


def half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float32)


def sixes_and_eights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.choice(np.array([6, 8], np.int16), shape)


@pytest.mark.parametrize("golden", ["qwen3moe", "mixtral"])
@pytest.mark.parametrize(
    ("form", "kind", "file_type"),
    [
        ("int4", BlockType.Q4_0, 2),
        ("gptq", BlockType.Q4_0, 2),
        ("gptq-zeros", BlockType.Q5_0, 8),
        ("gptq-v2", BlockType.Q5_0, 8),
    ],
)
def test_integers_are_kept_to_the_bit(
    golden: str,
    form: str,
    kind: BlockType,
    file_type: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored, config, weights = quantized(golden, *FORMS[form])
    folder = write(tmp_path / "model", stored, config)
    report = convert(folder, tmp_path / "model.gguf")
    assert report.recipe == "native"
    assert not report.losses
    assert not any("quantized" in warning for warning in report.warnings)
    found = types(tmp_path / "model.gguf")
    matrices = {name for name in found if "attn_" in name or "exps" in name} - {n for n in found if "norm" in n}
    assert {found[name] for name in matrices} == {kind}
    assert found["token_embd.weight"] is found["output.weight"] is BlockType.BF16
    assert found["blk.0.ffn_gate_inp.weight"] is found["blk.0.attn_norm.weight"] is BlockType.F32
    with GgufFile.open(tmp_path / "model.gguf") as file:
        assert file.metadata["general.file_type"] == file_type
        assert file.metadata["edgert.convert.recipe"] == "native"
    check_weights(tmp_path / "model.gguf", weights)
    monkeypatch.setattr(pipeline, "_PIECE", 700)
    convert(folder, tmp_path / "pieces.gguf", type="Native")
    assert (tmp_path / "pieces.gguf").read_bytes() == (tmp_path / "model.gguf").read_bytes()


def test_minimums_that_are_halves_make_q4_1(tmp_path: Path) -> None:
    def pack(name: str, x: np.ndarray) -> tuple[Stored, np.ndarray]:
        return gptq(32, zeros=sixes_and_eights)(
            name, np.sign(x + (x == 0)) * 2.0 ** np.round(np.log2(np.abs(x) + 1e-3))
        )

    stored, config, weights = quantized("qwen3moe", pack, GPTQ)
    scales = {name: array for name, (_, array) in stored.items() if name.endswith("scales")}
    for name, array in scales.items():  # seven bits at most, so that six times as much is a half
        own = name.removesuffix(".scales") + ".weight"
        cut = (array.view("<u2") & 0xFFF0).view("<f2")
        stored[name] = ("F16", cut)
        ratio = (cut.astype(np.float32) / array.astype(np.float32)).T
        weights[own] = (weights[own].reshape(*ratio.shape, 32) / array.astype(np.float32).T[..., None]).round()
        weights[own] = (weights[own] * cut.astype(np.float32).T[..., None]).reshape(len(ratio), -1)
    convert(write(tmp_path / "model", stored, config), tmp_path / "model.gguf")
    assert types(tmp_path / "model.gguf")[EXPERTS] is BlockType.Q4_1
    check_weights(tmp_path / "model.gguf", weights)


def test_one_expert_of_another_form_decides_for_its_layer(tmp_path: Path) -> None:
    stored, config, weights = quantized("qwen3moe", gptq(32, zeros=eights), GPTQ)
    other, _, others = quantized("qwen3moe", gptq(32, zeros=any_points), GPTQ)
    stored |= {name: part for name, part in other.items() if name.startswith(f"{DOWN}.")}
    weights[f"{DOWN}.weight"] = others[f"{DOWN}.weight"]
    convert(write(tmp_path / "model", stored, config), tmp_path / "model.gguf")
    found = types(tmp_path / "model.gguf")
    assert found[EXPERTS] is BlockType.Q5_0
    assert found["blk.0.ffn_down_exps.weight"] is BlockType.Q4_0
    check_weights(tmp_path / "model.gguf", weights)


@pytest.mark.parametrize("golden", ["qwen3moe", "qwen3moe-fused", "mixtral"])
def test_fp8(golden: str, tmp_path: Path) -> None:
    stored, config, weights = quantized(golden, fp8((24, 48)), FP8)
    folder = write(tmp_path / "model", stored, config)
    convert(folder, tmp_path / "floats.gguf", type="f32")
    check_weights(tmp_path / "floats.gguf", weights)
    report = convert(folder, tmp_path / "model.gguf")
    found = types(tmp_path / "model.gguf")
    assert found[EXPERTS] is found["blk.0.attn_q.weight"] is BlockType.Q8_0
    assert found["token_embd.weight"] is BlockType.BF16
    (loss,) = report.losses
    assert (loss.form, loss.type, loss.tensors) == ("fp8", "Q8_0", 14)
    error = total = 0.0
    with GgufFile.open(tmp_path / "floats.gguf") as exact:
        for name in exact.tensors:
            if found[name] is BlockType.Q8_0:
                error += float(
                    ((floats(tmp_path / "model.gguf", name) - floats(tmp_path / "floats.gguf", name)) ** 2).sum()
                )
                total += float((floats(tmp_path / "floats.gguf", name) ** 2).sum())
    assert loss.relative_rms == pytest.approx(np.sqrt(error / total), rel=1e-6)
    assert 1e-3 < loss.relative_rms < 1e-2
    warning = "14 tensors of fp8 became Q8_0, which is 0"
    assert any(text.startswith(warning) and text.endswith("GGUF has no eight-bit floats") for text in report.warnings)
    assert report.to_dict()["losses"][0]["type"] == "Q8_0"  # type: ignore[index]


def test_what_no_type_keeps_is_measured(tmp_path: Path) -> None:
    stored, config, weights = quantized("qwen3moe", symmetric(32, lambda s: s), COMPRESSED)
    folder = write(tmp_path / "model", stored, config)
    report = convert(folder, tmp_path / "model.gguf")
    assert types(tmp_path / "model.gguf")[EXPERTS] is BlockType.Q8_0
    (loss,) = report.losses
    assert loss.form == "compressed-tensors int4"
    assert loss.reason == "its scales are no numbers of half precision"
    convert(folder, tmp_path / "floats.gguf", type="f32")
    check_weights(tmp_path / "floats.gguf", weights)

    stored, config, _ = quantized("qwen3moe", gptq(32, zeros=eights), GPTQ)
    name = f"{DOWN}.g_idx"
    stored["model.layers.1.self_attn.o_proj.g_idx"] = ("I32", (np.arange(128) % 4).astype("<i4"))
    report = convert(write(tmp_path / "order", stored, config), tmp_path / "model.gguf")
    assert types(tmp_path / "model.gguf")["blk.1.attn_output.weight"] is BlockType.Q8_0
    assert report.losses[0].reason == "columns are grouped by activation, not side by side"
    assert name in stored


def test_another_type_quantizes_again(tmp_path: Path) -> None:
    stored, config, weights = quantized("qwen3moe", symmetric(32, bfloat16), COMPRESSED)
    folder = write(tmp_path / "model", stored, config)
    report = convert(folder, tmp_path / "model.gguf", type="q6_k")  # rows of 64 weights: Q8_0
    assert not report.losses
    assert not any("quantized already" in warning for warning in report.warnings)  # Q8_0 holds them to the bit
    own = weights["model.layers.1.self_attn.v_proj.weight"]
    np.testing.assert_array_equal(floats(tmp_path / "model.gguf", "blk.1.attn_v.weight"), own)
    report = convert(folder, tmp_path / "model.gguf", type="iq4_nl")
    assert any(
        warning.startswith("the source is quantized already (compressed-tensors int4): quantizing again")
        for warning in report.warnings
    )
    report = convert(folder, tmp_path / "model.gguf", tensors=["blk.0.*=q4_1"])
    found = types(tmp_path / "model.gguf")
    assert (found["blk.0.attn_q.weight"], found["blk.1.attn_q.weight"]) == (BlockType.Q4_1, BlockType.Q4_0)
    check_weights(tmp_path / "model.gguf", weights)


def test_native_of_other_sources(tmp_path: Path) -> None:
    stored, config, weights = quantized("qwen3moe", symmetric(32, bfloat16), COMPRESSED)
    convert(write(tmp_path / "model", stored, config), tmp_path / "a.gguf", name="a")
    report = convert(tmp_path / "a.gguf", tmp_path / "b.gguf", type="native")
    assert report.recipe == "native"
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    del config["quantization_config"]
    brain: Stored = {n: ("F16", half(a).astype("<f2")) if "v_proj" in n else ("F32", a) for n, a in weights.items()}
    convert(write(tmp_path / "plain", brain, config), tmp_path / "c.gguf", type="native")
    found = types(tmp_path / "c.gguf")
    assert (found["blk.0.attn_v.weight"], found["blk.0.attn_q.weight"]) == (BlockType.F16, BlockType.BF16)
    assert convert(tmp_path / "plain", tmp_path / "d.gguf").recipe == "q4_k_m"


def test_scales_of_activations_and_of_the_cache_are_left_out(tmp_path: Path) -> None:
    stored, config, weights = quantized("qwen3moe", fp8((24, 48)), FP8)
    own = "model.layers.0.self_attn"
    for name in (f"{own}.q_proj.input_scale", f"{own}.k_scale", f"{own}.v_proj.activation_scale"):
        stored[name] = ("F32", np.ones((), "<f4"))
    convert(write(tmp_path / "model", stored, config), tmp_path / "model.gguf", type="f32")
    check_weights(tmp_path / "model.gguf", weights)


def damaged(tmp_path: Path, pack: Pack, settings: dict[str, object], **changes: tuple[str, np.ndarray] | None) -> Path:
    """A checkpoint of which parts of one expert are replaced, or left out."""
    stored, config, _ = quantized("qwen3moe", pack, settings)
    for part, value in changes.items():
        name = f"{DOWN}.{part}"
        if value is None:
            del stored[name]
        else:
            stored[name] = value
    return write(tmp_path / "damaged", stored, config)


def zeros(dtype: str, kind: str, *shape: int) -> tuple[str, np.ndarray]:
    return dtype, np.zeros(shape, kind)


@pytest.mark.parametrize(
    ("pack", "settings", "part", "value", "reason"),
    [
        (fp8((24, 48)), FP8, "weight_scale_inv", None, f"its scale {DOWN}.weight_scale_inv is missing"),
        (fp8((24, 48)), FP8, "weight_scale_inv", zeros("F32", "f4", 2, 2), r"has shape \[2, 2\], not \[3, 1\] or"),
        (
            fp8((24, 48)),
            FP8,
            "weight_scale_inv",
            zeros("I32", "i4", 3, 1),
            "is stored as I32, not F32 or F16 or BF16 or",
        ),
        (symmetric(32, half), COMPRESSED, "weight_scale", None, f"its scale {DOWN}.weight_scale is missing"),
        (symmetric(32, half), COMPRESSED, "weight_scale", zeros("F32", "f4", 63, 1), r"has shape \[63, 1\], not \[\]"),
        (symmetric(32, half), COMPRESSED, "weight_scale", zeros("F32", "f4", 64, 3), "3 scales do not fit 32 columns"),
        (symmetric(32, half), COMPRESSED, "weight_shape", None, f"its shape {DOWN}.weight_shape is missing"),
        (symmetric(32, half), COMPRESSED, "weight_shape", ("I64", np.array([64, 1 << 50])), "which is not"),
        (
            symmetric(32, half),
            COMPRESSED,
            "weight_packed",
            zeros("I32", "i4", 64, 5),
            r"shape \[64, 5\], which is not \[",
        ),
        (
            symmetric(32, half),
            COMPRESSED,
            "weight_zero_point",
            zeros("I32", "i4", 9, 1),
            r"has shape \[9, 1\], not \[8, 1",
        ),
        (
            symmetric(32, half),
            COMPRESSED,
            "weight_g_idx",
            ("I32", np.full(32, 2, "<i4")),
            "groups 2 to 2, and there are 1",
        ),
        (gptq(32, zeros=eights), GPTQ, "scales", None, f"its scales {DOWN}.scales is missing"),
        (gptq(32, zeros=eights), GPTQ, "qzeros", None, f"its zero points {DOWN}.qzeros is missing"),
        (
            gptq(32, zeros=eights),
            GPTQ,
            "qzeros",
            zeros("I32", "i4", 1, 7),
            r"qzeros \[1, 7\] .* are no matrix of 2, 4 or 8",
        ),
        (gptq(32, zeros=eights), GPTQ, "g_idx", zeros("I32", "i4", 31), r"g_idx has shape \[31\], not \[32\]"),
    ],
)
def test_damage_is_named(
    pack: Pack,
    settings: dict[str, object],
    part: str,
    value: tuple[str, np.ndarray] | None,
    reason: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(FileFormatError, match=reason) as error:
        convert(damaged(tmp_path, pack, settings, **{part: value}), tmp_path / "model.gguf")
    assert f"tensor '{DOWN}.weight'" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_damage(tmp_path: Path) -> None:
    scale = ("F32", np.full((64, 1), np.inf, "<f4"))
    with pytest.raises(ConversionError, match=rf"{EXPERTS}: the weight at \[3, 0, 0\] is -?(inf|nan)"):
        convert(damaged(tmp_path, symmetric(32, half), COMPRESSED, weight_scale=scale), tmp_path / "model.gguf")
    packed = zeros("I32", "i4", 60, 4)
    shape = ("I64", np.array([60, 32], "<i8"))
    with pytest.raises(ConversionError, match=rf"{DOWN}.weight has shape \[60, 32\], and config.json says \[64, 32\]"):
        convert(
            damaged(
                tmp_path,
                symmetric(32, half),
                COMPRESSED,
                weight_packed=packed,
                weight_shape=shape,
                weight_scale=zeros("F32", "f4", 60, 1),
            ),
            tmp_path / "model.gguf",
        )
    with pytest.raises(ConversionError, match=rf"no place for {DOWN}.weight_scale_inv"):
        convert(
            damaged(tmp_path, symmetric(32, half), COMPRESSED, weight_scale_inv=zeros("F32", "f4", 1)),
            tmp_path / "model.gguf",
        )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"quant_method": "bitsandbytes"},
            r"quantized already \('bitsandbytes'\); give the original, or one in fp8, comp",
        ),
        ({"quant_method": "gptq", "bits": 5}, "gptq with bits='5' is not read; edgert reads 2, 4, 8"),
        ({"quant_method": "awq", "bits": 3}, "awq with bits='3' is not read; edgert reads 4"),
        ({"quant_method": "fp8", "fmt": "e3m4"}, "fp8 with fmt='e3m4' is not read; edgert reads e4m3, e5m2"),
        ({"quant_method": "exl2"}, r"quantized already \('exl2'\)"),
        ({"bits": 4}, r"quantized already \('unknown'\)"),
        ("hqq", r"quantized already \('unknown'\)"),
        ({**COMPRESSED, "format": "nvfp4-pack-quantized"}, "in the format 'nvfp4-pack-quantized' is not read"),
        ({"quant_method": "awq", "version": "gemv"}, "awq in the version 'gemv' is not read, only gemm"),
        ({**GPTQ, "checkpoint_format": "marlin"}, "gptq in the format 'marlin' is not read, only gptq and gptq_v2"),
    ],
)
def test_other_methods_are_refused_by_name(settings: dict[str, object], reason: str, tmp_path: Path) -> None:
    stored, config, _ = quantized("qwen3moe", symmetric(32, half), settings)
    with pytest.raises(UnsupportedError, match=reason):
        convert(write(tmp_path / "model", stored, config), tmp_path / "model.gguf")
