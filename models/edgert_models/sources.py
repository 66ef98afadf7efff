"""Where a checkpoint has the tensor that a GGUF name stands for: model files declare it, the converter reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgert_models.spec import ModelSpec


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
class Groups:
    """An order of elements: `skip` of them stay where they are; the others come in `groups`, each of consecutive parts
    of sizes `parts`, and of these the `chosen` parts are wanted: the first of them of all groups, then the second, …
    """

    groups: int
    parts: tuple[int, ...]
    chosen: tuple[int, ...]
    skip: int = 0

    @property
    def total(self) -> int:
        """Elements that are stored."""
        return self.skip + self.groups * sum(self.parts)

    def order(self) -> list[int]:
        """Where the wanted elements are stored."""
        found = list(range(self.skip))
        for part in self.chosen:
            for group in range(self.groups):
                start = self.skip + group * sum(self.parts) + sum(self.parts[:part])
                found += range(start, start + self.parts[part])
        return found


@dataclass(frozen=True, slots=True)
class Order:
    """An order that is no order of groups: where the wanted elements are, of `total` that are stored."""

    elements: tuple[int, ...]
    total: int

    def order(self) -> list[int]:
        """Where the wanted elements are stored."""
        return list(self.elements)


@dataclass(frozen=True, slots=True)
class Arranged:
    """Rows of one tensor in another order (or its `columns`, or the elements of a vector), which `groups` knows for a
    model, if it is another; vectors also in another shape. Of every element x eˣ or −eˣ where `exponential` is 1 or −1.
    """

    names: tuple[str, ...]
    groups: Callable[[ModelSpec], Groups | Order] | None = None
    columns: bool = False
    exponential: int = 0
    arrangement: Groups | Order | None = None

    def of(self, spec: ModelSpec) -> Arranged:
        """With what `groups` gives."""
        return replace(self, arrangement=None if self.groups is None else self.groups(spec))


@dataclass(frozen=True, slots=True)
class Scaled:
    """One tensor whose rows are multiplied: `factors` knows of a config.json how many rows by what, from the first on.
    No rows stand for all that are left.
    """

    names: tuple[str, ...]
    factors: Callable[[Mapping[str, Any]], tuple[tuple[int, float], ...]]


@dataclass(frozen=True, slots=True)
class RotaryRows:
    """Rows of a query or key projection, from halves to interleaved: within each head, row pair (i, i + half) becomes
    (2i, 2i + 1). GGUF files of the llama architecture store them so. Only the first `rotated` rows of a head are moved.
    """

    names: tuple[str, ...]
    heads: int
    rotated: int


@dataclass(frozen=True, slots=True)
class Experts:
    """All experts of one layer: a tensor an expert (`names`, with {e} for its number), or one fused tensor `fused`
    [experts, parts · out, in] of which `part` is wanted (parts are consecutive, never interleaved), which may also be
    a matrix of as many rows.
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
    """All experts of one layer in one tensor, under the first of `names` that the checkpoint has: [experts, in,
    parts · out], or a matrix of as many rows, whose columns `part`, part + parts, … are wanted as rows, or unless
    `in_turns` those from part · out on. Or in MXFP4, not transposed: codes `name`_blocks
    [experts, parts · out, in / 32, 16] with exponents `name`_scales [experts, parts · out, in / 32].
    """

    names: tuple[str, ...]
    part: int = 0
    parts: int = 1
    in_turns: bool = True


@dataclass(frozen=True, slots=True)
class ExpertVectors:
    """A vector for each expert of one layer, in one tensor [experts, parts · out] under the first of `names` that the
    checkpoint has, of which the elements `part`, part + parts, … are wanted.
    """

    names: tuple[str, ...]
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class HeadRows:
    """Of a tensor [heads · size, in], each of whose heads has `first` rows for keys and then rows for values: either
    these, head by head, or those, each head's matrix transposed.
    """

    names: tuple[str, ...]
    keys: bool
    first: int = 0
    size: int = 0

    def of(self, spec: ModelSpec) -> HeadRows:
        """With the sizes of a model's heads."""
        assert spec.latent is not None
        first = spec.latent.key_size - spec.rope.dims
        return replace(self, first=first, size=first + spec.latent.value_size)


Source = Stored | Scaled | HeadRows | Arranged | RotaryRows | Experts | TransposedExperts | ExpertVectors | RopeFactors


def renamed(source: Source, rename: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Source:
    """The same under other names."""
    if isinstance(source, RopeFactors):
        return source
    if isinstance(source, Experts):
        return replace(source, names=rename(source.names), fused=rename(source.fused))
    return replace(source, names=rename(source.names))
