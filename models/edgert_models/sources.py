"""Where a checkpoint has the tensor that a GGUF name stands for: model files declare it, the converter reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor, under the first of `names` that the checkpoint has: as it is, or with `plus` added to every element
    (norms that are stored as what they differ by from one); or of `parts` equal stretches of its rows number `part`.
    """

    names: tuple[str, ...]
    part: int = 0
    parts: int = 1
    plus: float = 0.0


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
    """Not stored: what the config says under `key`, or `edgert_models.rope.llama3_factors` of it."""

    key: str | None = None


@dataclass(frozen=True, slots=True)
class TransposedExperts:
    """All experts of one layer in one tensor `name` [experts, in, parts · out], whose columns `part`, part + parts, …
    are wanted as rows. Or in MXFP4, not transposed: codes `name`_blocks [experts, parts · out, in / 32, 16] with
    exponents `name`_scales [experts, parts · out, in / 32].
    """

    name: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class ExpertVectors:
    """A vector for each expert of one layer, in one tensor `name` [experts, parts · out], of which the elements `part`,
    part + parts, … are wanted.
    """

    name: str
    part: int = 0
    parts: int = 1


Source = Stored | RotaryRows | Experts | TransposedExperts | ExpertVectors | RopeFactors
