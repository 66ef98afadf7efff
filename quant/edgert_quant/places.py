"""Where a matrix stands among those of its part, by which mixes choose; as llama.cpp's `llama-quant.cpp` counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgert_models.graph import Weight
from edgert_models.spec import ModelSpec

_LAYER = re.compile(r"blk\.(\d+)\.(.+)\.weight")
_KINDS = ("attn_v", "attn_qkv", "ffn_gate", "ffn_up", "ffn_down")
_VALUES = _KINDS[:2]


@dataclass(frozen=True, slots=True)
class Place:
    """A matrix is the one with the number `index`, or in the layer of that number, of `count`."""

    index: int
    count: int
    spec: ModelSpec

    @property
    def many_queries(self) -> bool:
        """Whether a value head serves four query heads or more, in the first layer, where that attends."""
        spec, r = self.spec, self.spec.recurrence
        if r and not r.period and (r.layers[0] or any(r.feeds[:1])):
            return False
        return spec.heads >= 4 * (spec.window_kv_heads if spec.window_kv_heads and spec.window_of(0) else spec.kv_heads)


def part_of(name: str) -> str:
    """What a matrix of a layer is called in all of them, an empty text for others."""
    match = _LAYER.fullmatch(name)
    return match[2] if match else ""


def places(weights: Iterable[Weight], spec: ModelSpec, *, counting: bool) -> Mapping[str, Place]:
    """Of values (of all projections that make them) and of gates, ups and downs. The latter have the number of their
    layer in models with experts, unless they are `counting`, and elsewhere count.
    """
    found: dict[str, Place] = {}
    matrices: dict[str, list[tuple[int, str]]] = {kind: [] for kind in _KINDS}
    for weight in weights:
        match = _LAYER.fullmatch(weight.name)
        kind = next((kind for kind in _KINDS if match and match[2].startswith(kind)), None)
        if match and kind and not weight.role.stays_float and (kind not in _VALUES or kind == match[2]):
            matrices[kind].append((int(match[1]), weight.name))
    values = sorted(each for kind in _VALUES for each in matrices[kind])
    found |= {name: Place(i, len(values), spec) for i, (_, name) in enumerate(values)}
    for kind in _KINDS[2:]:
        for i, (layer, name) in enumerate(sorted(matrices[kind])):
            by_layer = spec.experts > 1 and not counting
            found[name] = Place(layer if by_layer else i, spec.layers + spec.nextn, spec)
    return found
