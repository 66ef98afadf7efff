"""Tensors that some files have together: here they are apart, as plans want them.

Files with latent attention of before 2025 have the products for keys and for values of a layer in one tensor,
`attn_kv_b` [heads · (key + value), rank], as checkpoints have it. And some have gates and ups of experts in one,
`ffn_gate_up_exps` [experts, 2 · hidden, width]. Source: llama.cpp's `models/deepseek2.cpp` and `models/gemma4.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from edgert_models.registry import spec_from_gguf
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.gguf import GgufFile

_TOGETHER = "attn_kv_b.weight"
_KEPT = (BlockType.F32, BlockType.BF16)


@dataclass(frozen=True)
class HeadTensor:
    """[heads, rows, columns] of a tensor whose heads have `stride` rows each: those from `first` on as they are, or
    where `transposed` as columns, in floats.
    """

    file: GgufFile
    source: str
    type: BlockType
    shape: tuple[int, ...]
    first: int
    stride: int
    transposed: bool

    def read(self, start: int = 0, count: int | None = None) -> NDArray[np.uint8]:
        """Rows start … start + count through all heads, as uint8 [count, row bytes]."""
        heads, rows, _ = self.shape
        end = heads * rows if count is None else start + count
        parts = [np.empty((0, self.type.row_bytes(self.shape[-1])), np.uint8)]
        while start < end:
            head, row = divmod(start, rows)
            taken = min(rows - row, end - start)
            parts.append(self._of_head(head, row, taken))
            start += taken
        return np.concatenate(parts)

    def _of_head(self, head: int, row: int, count: int) -> NDArray[np.uint8]:
        begin = head * self.stride + self.first
        if not self.transposed:
            return self.file.read(self.source, begin + row, count)
        columns = self.file.read(self.source, begin, self.shape[-1])
        matrix = dequantize(columns, self.file.tensors[self.source].type)
        return quantize(np.ascontiguousarray(matrix.T[row : row + count]), self.type)


_EXPERTS = "ffn_gate_up_exps.weight"


def split_experts(file: GgufFile) -> Mapping[str, HeadTensor]:
    """The tensors `ffn_gate_exps` and `ffn_up_exps` that a file has only together, by name."""
    found = {}
    for name, tensor in file.tensors.items():
        if not name.endswith(_EXPERTS) or len(tensor.shape) != 3 or tensor.shape[1] % 2:
            continue
        experts, both, width = tensor.shape
        for first, part in ((0, "gate"), (both // 2, "up")):
            apart = f"{name.removesuffix(_EXPERTS)}ffn_{part}_exps.weight"
            found[apart] = HeadTensor(file, name, tensor.type, (experts, both // 2, width), first, both, False)
    return {name: tensor for name, tensor in found.items() if name not in file.tensors}


def split_tensors(file: GgufFile) -> Mapping[str, HeadTensor]:
    """All that a file has only together with others, by name."""
    return {**split_latents(file), **split_experts(file)}


def split_latents(file: GgufFile) -> Mapping[str, HeadTensor]:
    """The tensors `attn_k_b` and `attn_v_b` that a file has only together, by name. Keys are transposed, for which
    blocks must be undone: they are in F16 unless the file has them in F32 or BF16.
    """
    together = [name for name in file.tensors if name.endswith(_TOGETHER)]
    if not together:
        return {}
    spec = spec_from_gguf(file.metadata, {name: tensor.shape for name, tensor in file.tensors.items()})
    latent = spec.latent
    if latent is None:
        return {}  # a family that does not have it
    plain = latent.key_size - spec.rope.dims
    stride, found = plain + latent.value_size, {}
    for name in together:
        kind, prefix = file.tensors[name].type, name.removesuffix(_TOGETHER)
        if file.tensors[name].shape != (spec.heads * stride, latent.rank):
            continue  # the tensors that the model needs are missing then
        floats, shape = kind if kind in _KEPT else BlockType.F16, (spec.heads, latent.rank, plain)
        found[f"{prefix}attn_k_b.weight"] = HeadTensor(file, name, floats, shape, 0, stride, True)
        shape = (spec.heads, latent.value_size, latent.rank)
        found[f"{prefix}attn_v_b.weight"] = HeadTensor(file, name, kind, shape, plain, stride, False)
    return {name: tensor for name, tensor in found.items() if name not in file.tensors}
