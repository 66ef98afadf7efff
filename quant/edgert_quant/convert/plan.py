"""Plans: which tensor gets which block type, as a TOML file that can be read, edited and applied.

architecture = "qwen3moe"

[tensors]
"blk.0.attn_q.weight" = "q6_k"
"blk.0.ffn_down_exps.weight" = "iq4_xs"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from edgert_models.errors import RequestError
from edgert_models.graph import Weight

from edgert_quant.blocks import BlockType
from edgert_quant.blocks.quantizer import writable_types
from edgert_quant.convert.report import tensor_bytes
from edgert_quant.files import quoted
from edgert_quant.recipes import Recipe, file_type_of

Types = Mapping[str, BlockType]


def read_plan(path: str | Path, architecture: str) -> dict[str, BlockType]:
    """Types by tensor; RequestError names the file and what is wrong in it."""
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"{path}: {reason}", parameter="plan") from error
    tensors, planned = document.get("tensors"), document.get("architecture", architecture)
    if not isinstance(tensors, dict) or not tensors:
        raise RequestError(f"{path}: a plan has a table [tensors] of names and types", parameter="plan")
    if planned != architecture:
        reason = f"{path}: the plan is for {quoted(str(planned))}, the model is {architecture}"
        raise RequestError(reason, parameter="plan")
    known = {kind.name.lower(): kind for kind in writable_types()}
    for name, kind in tensors.items():
        if not isinstance(kind, str) or kind.lower() not in known:
            reason = f"{path}: {name} = {quoted(str(kind))}: there is no writing it; there is {', '.join(known)}"
            raise RequestError(reason, parameter="plan")
    return {name: known[kind.lower()] for name, kind in tensors.items()}


def plan_text(architecture: str, types: Types, notes: Mapping[str, object]) -> str:
    """The TOML of a plan; `notes` are numbers and texts that say how it came about."""
    lines = [f'architecture = "{architecture}"']
    lines += [f"{key} = {_toml(value)}" for key, value in notes.items()]
    lines += ["", "[tensors]", *(f'"{name}" = "{kind.name.lower()}"' for name, kind in types.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    return str(value) if isinstance(value, int | float) else '"' + str(value).replace("\\", "/").replace('"', "'") + '"'


def planned(types: Types, weights: Mapping[str, Weight], fixed: Types) -> dict[str, BlockType]:
    """Types of all tensors by a plan that names every matrix; RequestError for one that does not fit the model."""
    for name, kind in types.items():
        if name not in weights or weights[name].role.stays_float:
            what = "no tensor of the model" if name not in weights else "a vector or a router, which stays F32"
            raise RequestError(f"the plan names {quoted(name)}, which is {what}", parameter="plan")
        row = weights[name].shape[-1]
        if row % kind.block_size:
            reason = f"the plan wants {name} in {kind.name}: rows of {row} weights are no whole blocks of it"
            raise RequestError(reason, parameter="plan")
    kept = {name: BlockType.F32 for name, weight in weights.items() if weight.role.stays_float}
    missing = [name for name in weights if name not in types and name not in kept and name not in fixed]
    if missing:
        raise RequestError(f"the plan has no type for {missing[0]}", parameter="plan")
    return {name: fixed.get(name, types.get(name, BlockType.F32)) for name in weights}


def plan_recipe(types: Types, weights: Mapping[str, Weight]) -> Recipe:
    """What to call a file made by a plan: after the type that most of its bytes are in."""
    sizes: dict[BlockType, int] = {}
    for name, kind in types.items():
        sizes[kind] = sizes.get(kind, 0) + tensor_bytes(kind, weights[name].shape)
    base = max(sizes, key=lambda kind: sizes[kind])
    return Recipe("plan", base, file_type_of(base), "types tensor by tensor")
