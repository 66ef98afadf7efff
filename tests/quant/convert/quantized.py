"""The golden checkpoints in quantized forms, laid out as the tools do whose sources the readers cite."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.quant.convert.checkpoints import Tensors, load
from tests.support.golden import FOLDER

Stored = dict[str, tuple[str, np.ndarray]]
"""Tensors by name: their type in safetensors, and their bits."""

Pack = Callable[[str, np.ndarray], tuple[Stored, np.ndarray]]
"""pack(name, matrix): what is stored of a module, and the weights that this stands for."""


def write(folder: Path, tensors: Stored, config: dict[str, object]) -> Path:
    """A checkpoint in one file."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    header: dict[str, object] = {}
    offset = 0
    for name, (dtype, array) in tensors.items():
        end = offset + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    data = b"".join(np.ascontiguousarray(array).tobytes() for _, array in tensors.values())
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    return folder


def quantized(golden: str, pack: Pack, settings: dict[str, object]) -> tuple[Stored, dict[str, object], Tensors]:
    """A golden checkpoint whose layers' matrices are packed, its config, and the weights that it stands for.

    Routers, embeddings and the output stay BF16, as all tools leave them.
    """
    config = json.loads((FOLDER / golden / "config.json").read_text()) | {"quantization_config": settings}
    stored: Stored = {}
    weights: Tensors = {}
    for name, array in load(FOLDER / golden).items():
        weights[name] = array
        if array.ndim >= 2 and ".layers." in name and not name.endswith(("mlp.gate.weight", "moe.gate.weight")):
            parts, weights[name] = pack(name, array)
            stored |= parts
        else:
            stored[name] = ("BF16", (array.view(np.uint32) >> 16).astype("<u2"))
    return stored, config, weights


def groups(x: np.ndarray, size: int) -> np.ndarray:
    """[out, in] as [out, groups, size]."""
    return x.reshape(len(x), -1, size)


def bfloat16(x: np.ndarray) -> np.ndarray:
    """Cut to BF16, as float32."""
    return (x.astype("<f4").view(np.uint32) & 0xFFFF0000).view(np.float32)


def words(codes: np.ndarray, bits: int = 4) -> np.ndarray:
    """Codes [rows, n] in int32 [rows, n · bits / 32], the lowest bits first."""
    each = 32 // bits
    shifts = bits * np.arange(each, dtype=np.uint64)
    return (codes.reshape(len(codes), -1, each).astype(np.uint64) << shifts).sum(-1).astype("<u4").view("<i4")


def symmetric(size: int, scale: Callable[[np.ndarray], np.ndarray]) -> Pack:
    """compressed-tensors' int4: symmetric, in groups."""

    def pack(name: str, x: np.ndarray) -> tuple[Stored, np.ndarray]:
        tiles = groups(x, size)
        s = scale(np.abs(tiles).max(-1) / 7.5)
        q = np.clip(np.round(tiles / s[..., None]), -8, 7)
        own = name.removesuffix(".weight")
        stored: Stored = {
            f"{own}.weight_packed": ("I32", words((q + 8).astype(np.uint8).reshape(x.shape))),
            f"{own}.weight_scale": ("F32", s.astype("<f4")),
            f"{own}.weight_shape": ("I64", np.array(x.shape, "<i8")),
        }
        return stored, (q * s[..., None]).astype(np.float32).reshape(x.shape)

    return pack


def gptq(size: int, *, zeros: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray], v2: bool = False) -> Pack:
    """GPTQ in four bits with these zero points; the columns' order is that of the groups."""

    def pack(name: str, x: np.ndarray) -> tuple[Stored, np.ndarray]:
        tiles = groups(x, size)
        z = zeros(np.random.default_rng(len(name)), tiles.shape[:2])
        s = (np.abs(tiles).max(-1) / 7).astype(np.float16).astype(np.float32)
        q = np.clip(np.round(tiles / s[..., None]) + z[..., None], 0, 15).astype(np.uint8)
        own = name.removesuffix(".weight")
        packed = words(z.T)
        less = packed.view("<u4") - np.uint32(0 if v2 else 0x11111111)  # of whole words, as GPTQModel does
        stored: Stored = {
            f"{own}.qweight": ("I32", words(q.reshape(x.shape)).T),
            f"{own}.qzeros": ("I32", less.view("<i4")),
            f"{own}.scales": ("F16", s.T.astype("<f2")),
            f"{own}.g_idx": ("I32", (np.arange(x.shape[1]) // size).astype("<i4")),
            f"{own}.bias": ("F16", np.zeros(len(x), "<f2")),  # AutoGPTQ's, of a layer without one
        }
        weights = (q.astype(np.float32) - z[..., None]) * s[..., None]
        return stored, weights.astype(np.float32).reshape(x.shape)

    return pack


def eights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Zero points of symmetric weights."""
    return np.full(shape, 8, np.int16)


def any_points(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Zero points of others."""
    return rng.integers(0, 16, shape, np.int16)


def fp8(block: tuple[int, int]) -> Pack:
    """Eight-bit floats in blocks, the last ones cut off; of fused experts too."""
    from edgert_quant.checkpoint.dtypes import to_float32

    codes = np.arange(256, dtype=np.uint8)
    values = to_float32(codes, "F8_E4M3")
    order = np.argsort(values[~np.isnan(values)], kind="stable")
    known, numbers = values[~np.isnan(values)][order], codes[~np.isnan(values)][order]

    def pack(name: str, x: np.ndarray) -> tuple[Stored, np.ndarray]:
        *_, out, width = x.shape
        high, wide = block
        bands, strips = np.arange(out) // high, np.arange(width) // wide
        scales = np.zeros((*x.shape[:-2], bands[-1] + 1, strips[-1] + 1), np.float32)
        np.maximum.at(scales, (..., bands[:, None], strips[None, :]), np.abs(x))
        scales = (scales / 448).astype(np.float32)
        full = scales[..., bands[:, None], strips[None, :]]
        nearest = np.abs((x / full)[..., None] - known).argmin(-1)
        stored: Stored = {name: ("F8_E4M3", numbers[nearest]), f"{name}_scale_inv": ("F32", scales)}
        return stored, known[nearest] * full

    return pack


COMPRESSED: dict[str, object] = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}
GPTQ: dict[str, object] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
FP8: dict[str, object] = {"quant_method": "fp8", "weight_block_size": [24, 48]}

FORMS: dict[str, tuple[Pack, dict[str, object]]] = {
    "int4": (symmetric(32, bfloat16), COMPRESSED),
    "gptq": (gptq(32, zeros=eights), GPTQ),
    "gptq-zeros": (gptq(32, zeros=any_points), GPTQ),
    "gptq-v2": (gptq(32, zeros=any_points, v2=True), {**GPTQ, "checkpoint_format": "gptq_v2"}),
    "fp8": (fp8((24, 48)), FP8),
}
