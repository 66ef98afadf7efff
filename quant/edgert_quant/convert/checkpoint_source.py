"""A Hugging Face checkpoint folder as the source of a conversion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from edgert_models.architecture import Architecture
from edgert_models.errors import ConversionError, UnsupportedError
from edgert_models.graph import Plan, Weight
from edgert_models.nextn import needed, nextn_weights
from edgert_models.registry import architecture_of_config, build_plan, metadata_from_spec, spec_from_config
from edgert_models.rope import rope_factors
from edgert_models.sources import RopeFactors, Scaled
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType
from edgert_quant.checkpoint import Checkpoint, method_of, open_views
from edgert_quant.convert.card import card_metadata, read_card
from edgert_quant.convert.compatibility import llama_cpp_differences, wants_own_output
from edgert_quant.convert.generation import sampling_metadata
from edgert_quant.convert.locate import model_name
from edgert_quant.convert.metadata import config_hash, size_label
from edgert_quant.convert.source import MetadataEntry, some
from edgert_quant.convert.tensors import Computed, Finder, TensorRows
from edgert_quant.convert.tokenizer import tokenizer_metadata
from edgert_quant.recipes import DEFAULT, NATIVE

_LAYER = re.compile(r"(?:model\.)?(?:language_model\.(?:model\.)?)?layers\.(\d+)\.")
_HARMLESS = ("rotary_emb.inv_freq",)  # a buffer that old transformers saved; follows from the config
_KEPT_FLOATS = (BlockType.F16, BlockType.BF16)


def _accept(config: Mapping[str, Any]) -> None:
    """Raise UnsupportedError for what no weights could change."""
    spec_from_config(config)
    method_of(config)


class CheckpointSource:
    """Implements `Source`. Opening it checks that every tensor is there in its shape, and that none is left over."""

    def __init__(self, path: Path, *, parity: bool = True, mtp: bool | None = None) -> None:
        self._checkpoint = Checkpoint.open(path, _accept)
        try:
            self._prepare(parity, mtp)
        except BaseException:
            self._checkpoint.close()
            raise

    def _prepare(self, parity: bool, mtp: bool | None) -> None:
        config = self._checkpoint.config
        architecture = architecture_of_config(config)
        spec = spec_from_config(config)
        self._views = open_views(self._checkpoint)
        finder = Finder(self._checkpoint.folder, self._views, config)
        if spec.tied and finder.differ(
            *(architecture.find(spec, f"{name}.weight") for name in ("output", "token_embd"))
        ):
            spec = replace(spec, tied=False)  # transformers and llama.cpp go by what is stored, too
        self._tied, self._left_out = spec.tied, architecture.left_out
        self.fixed_types: dict[str, BlockType] = {}
        self.spec = replace(spec, tied=False) if wants_own_output(spec) else spec
        self.paths = tuple({tensor.file: None for tensor in self._checkpoint.tensors.values()})
        plan = build_plan(self.spec)
        self.weights: dict[str, Weight] = dict(plan.weights)
        self.warnings = llama_cpp_differences(self.spec)
        self._apart: set[str] = set()
        self._add_nextn(architecture, plan, finder, mtp)
        self._rows: dict[str, TensorRows] = {}
        for weight in self.weights.values():
            source = architecture.source(self.spec, weight.name)
            if weight.name == "output.weight" and self._tied:
                embedding = architecture.source(self.spec, "token_embd.weight")
                if isinstance(source, Scaled) and isinstance(embedding, Scaled):
                    source = replace(source, names=embedding.names)
                else:
                    source = embedding
            if isinstance(source, RopeFactors):
                text: Any = config.get("text_config", config)
                self._rows[weight.name] = Computed(values=rope_factors(text, source.key, spec.rope))
                continue
            self._rows[weight.name] = rows = finder.find(weight, source)
            if "mxfp4" in architecture.quantized and rows.types == (BlockType.MXFP4,):
                self.fixed_types[weight.name] = BlockType.MXFP4
        self._check_left_over()
        folder = self._checkpoint.folder
        self._tokenizer, warnings = tokenizer_metadata(folder, vocabulary=self.spec.vocabulary, parity=parity)
        self.warnings += warnings

    def _add_nextn(self, architecture: Architecture, plan: Plan, finder: Finder, mtp: bool | None) -> None:
        """Layers for multi-token prediction, as many as there are, become part of the file, unless nobody wants it."""
        if architecture.nextn is None:
            return
        layers, must = list(self._nextn_layers(architecture, finder)), needed(plan)
        found: dict[str, Weight] = {}
        for layer in layers:
            for weight in nextn_weights(plan, layer):
                source = architecture.find(self.spec, weight.name)
                first = weight.name not in found
                if source is None or not (finder.has(source) or (first and weight.name.split(".", 2)[2] in must)):
                    continue
                if first or finder.fits(weight, source):
                    found[weight.name] = weight
        if layers and (mtp or (mtp is None and architecture.nextn.in_llama_cpp)):
            self.weights |= found
            self.spec = replace(self.spec, nextn=len(layers))
        elif layers:
            rows = [finder.find(each, architecture.source(self.spec, each.name)) for each in found.values()]
            self._apart = set().union(*(each.used for each in rows))
            why = "as asked" if mtp is False else "because llama.cpp would not load the file (mtp, --mtp keeps them)"
            self.warnings.append(f"left out, {why}: {len(layers)} layers for multi-token prediction")

    def _nextn_layers(self, architecture: Architecture, finder: Finder) -> Iterator[int]:
        """Their numbers, counted from the model's first layer."""
        last = None
        for layer in count(self.spec.layers):
            own = architecture.find(self.spec, f"blk.{layer}.attn_norm.weight")
            joined = architecture.find(self.spec, f"blk.{layer}.nextn.eh_proj.weight")
            if own is None or joined is None or own == last or not (finder.has(own) and finder.has(joined)):
                return
            yield layer
            last = own

    def _check_left_over(self) -> None:
        used = frozenset(self._apart).union(*(rows.used for rows in self._rows.values()))
        left = [name for name in self._views if name not in used and not name.endswith(_HARMLESS)]
        if self._tied:
            left = [name for name in left if not name.endswith("lm_head.weight")]
        beyond = [name for name in left if self._is_beyond_last_layer(name)]
        if beyond:
            self.warnings.append(f"left out, beyond the last of {self.spec.layers} layers: {some(beyond)}")
        apart = [name for name in left if name.startswith(self._left_out)] if self._left_out else []
        apart += [name for name in left if self._is_of_shared_keys(name)]
        if apart:
            self.warnings.append(f"left out, as edgert does not use it: {some(apart)}")
        known = {*beyond, *apart}
        unknown = [name for name in left if name not in known and not self._is_zero_bias(name)]
        if unknown and all(name.endswith(".bias") for name in unknown):
            raise UnsupportedError(
                f"{self._checkpoint.folder}: {self.spec.architecture} has no place for the biases {some(unknown)}"
            )
        if unknown:
            raise ConversionError(
                f"{self._checkpoint.folder}: the model has no place for {some(unknown)}; "
                "is config.json that of this checkpoint?"
            )

    def _is_of_shared_keys(self, name: str) -> bool:
        """Whether it would make keys or values of a layer that takes those of another."""
        match, layers = _LAYER.match(name), self.spec.layers
        shares = match is not None and layers - self.spec.shared_kv_layers <= int(match[1]) < layers
        return shares and any(f".self_attn.{part}_" in name for part in "kv")

    def _is_beyond_last_layer(self, name: str) -> bool:
        match = _LAYER.match(name)
        return match is not None and int(match[1]) >= self.spec.layers

    def _is_zero_bias(self, name: str) -> bool:
        """Whether it is a bias of zeros, as AutoGPTQ saved with every matrix, whether the model has biases or not."""
        module = name.removesuffix(".bias")
        weight = self._views.get(f"{module}.weight")
        return name != module and weight is not None and weight.quantized and not self._checkpoint.read(name).any()

    def metadata(self) -> dict[str, MetadataEntry]:
        """See `Source`."""
        experts = self.spec.experts
        entries: dict[str, MetadataEntry] = {
            "general.architecture": MetadataEntry(self.spec.architecture),
            "general.type": MetadataEntry("model"),
            "general.name": MetadataEntry(model_name(self._checkpoint.folder)),
            "general.size_label": MetadataEntry(size_label(self.weights.values(), experts)),
        }
        card = card_metadata(read_card(self._checkpoint.folder))
        entries |= {key: MetadataEntry(value) for key, value in card.items()}
        entries |= {key: MetadataEntry(value) for key, value in metadata_from_spec(self.spec).items()}
        entries |= sampling_metadata(self._checkpoint.json("generation_config.json"))
        entries["edgert.source.config_sha256"] = MetadataEntry(config_hash(self._checkpoint.config))
        return entries | self._tokenizer

    def row_group(self, name: str) -> int:
        """See `Source`."""
        return self._rows[name].row_group

    def read(self, name: str, start: int, count: int, kind: BlockType) -> NDArray[np.float32] | NDArray[np.uint8]:
        """See `Source`: bytes only of what is quantized."""
        rows = self._rows[name]
        packed = rows.packed(start, count, kind)
        return rows.read(start, count) if packed is None else packed

    @property
    def default_type(self) -> str:
        """See `Source`."""
        quantized = any(rows.quantized for rows in self._rows.values())
        return NATIVE.name if quantized else DEFAULT

    def native_types(self) -> Mapping[str, BlockType]:
        """See `Source`: Q8_0 for what no type keeps, and BF16 for floats, unless they are F16."""
        return {name: self._native_type(weight, self._rows[name]) for name, weight in self.weights.items()}

    def _native_type(self, weight: Weight, rows: TensorRows) -> BlockType:
        if weight.role.stays_float:
            return BlockType.F32
        smallest = rows.types[0] if rows.types else None
        if not rows.quantized:
            return smallest if smallest in _KEPT_FLOATS else BlockType.BF16
        if smallest is not None:
            return smallest
        return BlockType.F16 if weight.shape[-1] % BlockType.Q8_0.block_size else BlockType.Q8_0

    def forms(self, types: Mapping[str, BlockType]) -> Mapping[str, tuple[str, str]]:
        """See `Source`."""
        found = {}
        for name, kind in types.items():
            rows = self._rows[name]
            if rows.quantized and kind is not BlockType.F32 and kind not in rows.types:
                found[name] = (rows.views[0].form, rows.reason or f"{kind.name} was asked for")
        return found

    def close(self) -> None:
        """See `Source`."""
        self._checkpoint.close()
