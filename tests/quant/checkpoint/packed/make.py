"""Small matrices, quantized and read back by the tools that write such checkpoints.

    python tests/quant/checkpoint/packed/make.py OUTPUT

needs torch, safetensors, transformers (5.24), compressed-tensors (0.20), auto-gptq (0.7.1) and AutoAWQ (0.2.9), of the
last two only the modules named below. Each folder gets `config.json`, `model.safetensors` as the tool lays it out, and
`expected.npz`: what the tool's own code makes of each matrix when its scales are widened to float32 first, so that
products are not rounded to half precision.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from auto_gptq.nn_modules.qlinear.qlinear_cuda import QuantLinear as GptqLinear
from awq.modules.linear.gemm import WQLinear_GEMM
from awq.utils.packing_utils import dequantize_gemm
from compressed_tensors.compressors.mxfp4.base import MXFP4PackedCompressor
from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize

OUT, IN = 64, 128
Tensors = dict[str, torch.Tensor]


def weight(seed: int, out: int = OUT, width: int = IN) -> torch.Tensor:
    """A matrix with rows of different sizes, and a mean that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(out, width, generator=generator) * 0.02 + 0.003
    return x * torch.logspace(-1, 0.5, out)[:, None]


def save(folder: Path, settings: dict[str, object], tensors: Tensors, expected: Tensors) -> None:
    """One checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"quantization_config": settings}, indent=1) + "\n")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    np.savez_compressed(folder / "expected.npz", **{name: tensor.float().numpy() for name, tensor in expected.items()})


def ranges(x: torch.Tensor, args: QuantizationArgs, block: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points of blocks of rows and columns, from smallest and largest values."""
    high, wide = block
    tiles = x.reshape(x.shape[0] // high, high, x.shape[1] // wide, wide)
    return calculate_qparams(tiles.amin(dim=(1, 3)), tiles.amax(dim=(1, 3)), args)


def compressed(folder: Path, compressor: type, block: tuple[int, int], scale: torch.dtype, **given: object) -> None:
    """One matrix by a compressor of compressed-tensors."""
    args = QuantizationArgs(**given)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    x = weight(len(folder.name))
    scales, zeros = ranges(x, args, block)
    state = {"weight": x, "weight_scale": scales.to(scale)}
    if not args.symmetric:
        state["weight_zero_point"] = zeros
    stored = compressor.compress(state, scheme)
    widened = {**stored, "weight_scale": stored["weight_scale"].float()}
    if compressor is MXFP4PackedCompressor:
        widened = stored
    found = compressor.decompress(widened, scheme)["weight"]
    settings = {
        "quant_method": "compressed-tensors",
        "format": {PackedQuantizationCompressor: "pack-quantized", MXFP4PackedCompressor: "mxfp4-pack-quantized"}.get(
            compressor, "float-quantized" if args.type == "float" else "int-quantized"
        ),
        "config_groups": {"group_0": json.loads(scheme.model_dump_json())},
        "ignore": ["lm_head"],
    }
    tensors = {f"a.{name}": tensor for name, tensor in stored.items()} | {"lm_head.weight": x[:8].bfloat16()}
    save(folder, settings, tensors, {"a.weight": found, "lm_head.weight": x[:8].bfloat16()})


def gptq(folder: Path, bits: int, group: int, *, symmetric: bool = False, act_order: bool = False) -> None:
    """AutoGPTQ's own packing, and the product of its layer with the identity."""
    x = weight(len(folder.name))
    linear = torch.nn.Linear(IN, OUT, bias=True)
    linear.weight.data, linear.bias.data = x, torch.zeros(OUT)
    tiles = x.reshape(OUT, IN // group, group)
    scales = ((tiles.amax(2) - tiles.amin(2)) / (2**bits - 1)).half().float()
    zeros = torch.round(-tiles.amin(2) / scales).clamp(1, 2**bits - 1)
    if symmetric:
        scales, zeros = (
            (tiles.abs().amax(2) * 2 / (2**bits - 1)).half().float(),
            torch.full_like(zeros, 2 ** (bits - 1)),
        )
    order = torch.arange(IN) // group
    if act_order:
        order = order[torch.randperm(IN, generator=torch.Generator().manual_seed(2))]
    layer = GptqLinear(bits, group, IN, OUT, True)
    layer.pack(linear, scales, zeros, order.int())
    tensors = {f"a.{name}": buffer.clone() for name, buffer in layer.state_dict().items()}
    layer.scales, layer.bias = layer.scales.float(), None
    found = layer(torch.eye(IN)).T
    settings = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order, "sym": symmetric}
    save(folder, settings, tensors, {"a.weight": found})


def awq(folder: Path, group: int) -> None:
    """AutoAWQ's own packing and unpacking."""
    x = weight(len(folder.name))
    linear = torch.nn.Linear(IN, OUT, bias=False)
    linear.weight.data = x
    tiles = x.reshape(OUT, IN // group, group)
    scales = ((tiles.amax(2) - tiles.amin(2)) / 15).half().float()
    zeros = torch.round(-tiles.amin(2) / scales).clamp(0, 15)
    layer = WQLinear_GEMM.from_linear(linear, 4, group, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
    found = dequantize_gemm(layer.qweight, layer.qzeros, layer.scales.float(), 4, group).T
    settings = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    tensors = {f"a.{name}": buffer for name, buffer in layer.state_dict().items()}
    save(folder, settings, tensors, {"a.weight": found})


def fp8(folder: Path, block: list[int], *, fused: bool = False) -> None:
    """transformers' own blocks, of a matrix or of fused experts."""
    config = SimpleNamespace(weight_block_size=block, scale_fmt="float")
    quantizer = SimpleNamespace(quantization_config=config)
    x = torch.stack([weight(e) for e in range(3)]) if fused else weight(5)
    name = "experts.gate_up_proj" if fused else "a.weight"
    tensors = Fp8Quantize(quantizer).convert({name: x})
    scale = next(tensor for key, tensor in tensors.items() if key.endswith("scale_inv"))
    found = Fp8Dequantize(quantizer)._dequantize_one(tensors[name], scale, torch.float32)
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": block}
    save(folder, settings, tensors, {name: found})


def main(output: Path) -> None:
    """All of them."""
    integers = {"num_bits": 4, "strategy": "group", "symmetric": True}
    packer, naive, half, brain = PackedQuantizationCompressor, NaiveQuantizationCompressor, torch.half, torch.bfloat16
    compressed(output / "int4-g32", packer, (1, 32), brain, **integers, group_size=32)
    compressed(output / "int4-g64-zeros", packer, (1, 64), half, **{**integers, "symmetric": False}, group_size=64)
    compressed(
        output / "int4-g32-zeros-bf16", packer, (1, 32), brain, **{**integers, "symmetric": False}, group_size=32
    )
    compressed(output / "int8-packed", packer, (1, IN), brain, num_bits=8, strategy="channel", symmetric=True)
    compressed(output / "int8", naive, (1, IN), brain, num_bits=8, strategy="channel", symmetric=True)
    compressed(output / "fp8-channel", naive, (1, IN), brain, num_bits=8, type="float", strategy="channel")
    compressed(output / "fp8-tensor", naive, (OUT, IN), torch.float, num_bits=8, type="float", strategy="tensor")
    mxfp4 = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": torch.uint8}
    compressed(output / "mxfp4", MXFP4PackedCompressor, (1, 32), torch.float, **mxfp4)
    gptq(output / "gptq-4", 4, 64, symmetric=True)
    gptq(output / "gptq-4-zeros", 4, 64)
    gptq(output / "gptq-4-order", 4, 32, act_order=True)
    gptq(output / "gptq-8", 8, 128, symmetric=True)
    gptq(output / "gptq-8-zeros", 8, 128)
    awq(output / "awq", 64)
    fp8(output / "fp8-blocks", [16, 64])
    fp8(output / "fp8-fused", [16, 64], fused=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
