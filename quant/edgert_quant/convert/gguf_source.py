"""A GGUF file as the source of a conversion: its tensors are stored again, in other types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from edgert_models.errors import ConversionError
from edgert_models.graph import Role, Weight
from edgert_models.nextn import nextn_weights
from edgert_models.registry import architecture_named, build_plan, metadata_from_spec, spec_from_gguf
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.convert.compatibility import llama_cpp_differences
from edgert_quant.convert.source import MetadataEntry, some
from edgert_quant.gguf import GgufFile, GgufTensor
from edgert_quant.recipes import DEFAULT
from edgert_quant.together import HeadTensor, split_tensors

_REPLACED = ("general.alignment", "general.file_type", "general.quantization_version")
_REPLACED_PREFIXES = ("split.", "quantize.imatrix.", "edgert.convert.", "edgert.calibration.", "edgert.quality.")
_FLOATS = (BlockType.F64, BlockType.F32, BlockType.F16, BlockType.BF16)


class GgufSource:
    """Implements `Source`. Copied as they are: tensors that the plan does not know, with a warning, and MXFP4 experts
    of a family whose checkpoints have them.
    """

    def __init__(self, path: Path) -> None:
        self._file = GgufFile.open(path)
        try:
            self._prepare()
        except BaseException:
            self._file.close()
            raise

    def _prepare(self) -> None:
        self._made = split_tensors(self._file)
        together = {made.source for made in self._made.values()}
        whole = {name: tensor for name, tensor in self._file.tensors.items() if name not in together}
        self._tensors: dict[str, GgufTensor | HeadTensor] = {**whole, **self._made}
        tensors = self._tensors
        self.paths = self._file.paths
        self.spec = spec_from_gguf(self._file.metadata, {name: tensor.shape for name, tensor in tensors.items()})
        self.warnings = llama_cpp_differences(self.spec)
        plan = build_plan(self.spec)
        self.weights: dict[str, Weight] = dict(plan.weights)
        for layer in range(self.spec.layers, self.spec.layers + self.spec.nextn):
            self.weights |= {
                weight.name: weight
                for weight in nextn_weights(plan, layer)
                if weight.name in tensors and weight.stored_as(tensors[weight.name].shape)
            }
        for weight in self.weights.values():
            if weight.name not in tensors:
                raise ConversionError(f"{self._file.path}: tensor {weight.name} is missing")
            if not weight.stored_as(tensors[weight.name].shape):
                found, wanted = list(tensors[weight.name].shape), list(weight.shape)
                raise ConversionError(f"{self._file.path}: tensor {weight.name} has shape {found}, not {wanted}")
        native = "mxfp4" in architecture_named(self.spec.architecture).quantized
        experts = [name for name, weight in self.weights.items() if weight.role is Role.EXPERTS and native]
        kept = {name: BlockType.MXFP4 for name in experts if tensors[name].type is BlockType.MXFP4}
        changed = [tensors[name].type for name in self.weights if name not in kept]
        quantized = {kind.name for kind in changed if kind not in _FLOATS}
        if quantized:
            self.warnings.append(
                f"the source is quantized already ({', '.join(sorted(quantized))}): quantizing again loses more than "
                "quantizing the original checkpoint"
            )
        others = [name for name in tensors if name not in self.weights]
        if others:
            self.warnings.append(f"copied as they are, because edgert does not know them: {some(others)}")
        for name in others:
            self.weights[name] = Weight(name, tensors[name].shape, Role.VECTOR)
        self.fixed_types = {name: tensors[name].type for name in others} | kept

    def metadata(self) -> dict[str, MetadataEntry]:
        """The file's own metadata, less what a conversion decides anew."""
        found = self._file.metadata
        entries = {
            key: MetadataEntry(value, found.stored_type(key))  # type: ignore[arg-type]
            for key, value in found.items()
            if key not in _REPLACED and not key.startswith(_REPLACED_PREFIXES)
        }
        if self._made:  # of heads whose products are absorbed
            own, attention = metadata_from_spec(self.spec), f"{self.spec.architecture}.attention."
            entries |= {key: MetadataEntry(value) for key, value in own.items() if key.startswith(attention)}
        return entries

    def row_group(self, name: str) -> int:
        """See `Source`: any row can be read by itself."""
        return 1

    def read(self, name: str, start: int, count: int, kind: BlockType) -> NDArray[np.float32] | NDArray[np.uint8]:
        """See `Source`."""
        stored, made = self._tensors[name].type, self._made.get(name)
        data: NDArray[np.uint8] = self._file.read(name, start, count) if made is None else made.read(start, count)
        return data if stored is kind else dequantize(data, stored)

    @property
    def default_type(self) -> str:
        """See `Source`."""
        return DEFAULT

    def native_types(self) -> dict[str, BlockType]:
        """See `Source`: the types that they have."""
        return {name: self._tensors[name].type for name in self.weights}

    def forms(self, types: Mapping[str, BlockType]) -> dict[str, tuple[str, str]]:
        """See `Source`: none, a file holds nothing that no type keeps."""
        return {}

    def close(self) -> None:
        """See `Source`."""
        self._file.close()
