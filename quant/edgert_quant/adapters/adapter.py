"""What an adapter adds to which matrix, checked against the model that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from edgert_models.errors import FileFormatError, RequestError, UnsupportedError
from edgert_models.graph import Plan, Role

from edgert_quant.adapters.gguf import read_gguf
from edgert_quant.adapters.pair import Pair

__all__ = ["Adapter", "Pair", "read_adapter"]

_ADAPTED = (Role.MATRIX, Role.ROUTER)


@dataclass(frozen=True, slots=True)
class Adapter:
    """By the name of the matrix that it is added to: W + b a."""

    path: Path
    pairs: Mapping[str, Pair]


def read_adapter(path: str | Path, plan: Plan, scale: float = 1.0) -> Adapter:
    """Read an adapter of the plan's model, `scale` times as strong as its makers had it.

    RequestError where there is none, or a scale that is no number; FileFormatError for what is damaged, or of another
    model; UnsupportedError names a matrix, or an option, that edgert does not serve.
    """
    path = Path(path)
    if not np.isfinite(scale):
        raise RequestError(f"the adapter's scale is {scale}, which is no finite number", parameter="adapters")
    if path.is_dir():
        from edgert_quant.adapters.peft import read_peft  # not at the top: all that reads checkpoints comes with it

        pairs = read_peft(path, plan)
    elif path.is_file():
        pairs = read_gguf(path, plan)
    else:
        raise RequestError(f"there is no adapter '{path}': neither a GGUF file nor a PEFT folder", parameter="adapters")
    if not pairs:
        raise FileFormatError(path, "the adapter has no matrices")
    for name, pair in pairs.items():
        _check(path, plan, name, pair)
    return Adapter(path, {name: Pair(pair.a, np.float32(scale) * pair.b) for name, pair in pairs.items()})


def _check(path: Path, plan: Plan, name: str, pair: Pair) -> None:
    weight = plan.weights.get(name)
    if weight is None:
        raise FileFormatError(path, "the model has no such tensor; is the adapter that of another model?", field=name)
    if weight.role not in _ADAPTED or len(weight.shape) != 2:
        what = f"adapters on {weight.role.value} are not supported; those on the matrices of single layers are"
        raise UnsupportedError(f"{path}, {name}: {what}")
    out, width = weight.shape
    rank = len(pair.a)
    if pair.a.shape != (rank, width) or pair.b.shape != (out, rank) or not rank:
        shapes = f"{list(pair.a.shape)} and {list(pair.b.shape)}"
        reason = f"the shapes are {shapes}, which do not make one of {list(weight.shape)}"
        raise FileFormatError(path, reason, field=name)
    for part in (pair.a, pair.b):
        if not np.isfinite(part).all():
            raise FileFormatError(path, "has numbers that are not finite", field=name)
