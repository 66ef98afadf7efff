"""Where a checkpoint has the tensor that a GGUF name stands for: model files declare it, the converter reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor as it is, under the first of `names` that the checkpoint has."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RotaryRows:
    """Rows of a query or key projection, from halves to interleaved: within each head, row pair (i, i + half) becomes
    (2i, 2i + 1). GGUF files of the llama architecture store them so.
    """

    names: tuple[str, ...]
    heads: int


@dataclass(frozen=True, slots=True)
class Experts:
    """All experts of one layer: a tensor an expert (`names`, with {e} for its number), or one fused tensor `fused`
    [experts, parts · out, in] of which `part` is wanted (parts are consecutive, never interleaved).
    """

    names: tuple[str, ...]
    fused: tuple[str, ...]
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class RopeFactors:
    """Not stored: computed from the config by `edgert_models.rope.llama3_factors`."""


Source = Stored | RotaryRows | Experts | RopeFactors
