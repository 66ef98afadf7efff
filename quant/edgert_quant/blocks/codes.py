"""What the weights of a type can be, up to scale and minimum: a range of whole numbers, or the entries of a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from edgert_quant.blocks.lanes import Lanes, splat


class Codes(ABC):
    """`low` and `high` are the extremes."""

    low: int
    high: int

    @property
    @abstractmethod
    def number(self) -> int:
        """How many there are."""

    @abstractmethod
    def nearest(self, place: Lanes, *, inside: bool = False) -> Lanes:
        """What comes nearest to each lane, as a float32 whole number. `inside`: no lane lies half a step or
        more beyond the extremes.
        """

    @abstractmethod
    def index(self, place: Lanes) -> Lanes:
        """Its number, an int32: 0 is that of the lowest."""


@dataclass(frozen=True)
class Range(Codes):
    """All whole numbers from low to high."""

    low: int
    high: int

    @property
    def number(self) -> int:
        """All from low to high."""
        return self.high - self.low + 1

    def nearest(self, place: Lanes, *, inside: bool = False) -> Lanes:
        """Rounded, and limited."""
        return (place if inside else place.clamp(self.low, self.high)).rounded()

    def index(self, place: Lanes) -> Lanes:
        """Counted from the lowest."""
        return place.clamp(self.low, self.high).integer() - self.low


@dataclass(frozen=True)
class Table(Codes):
    """Some whole numbers, in rising order."""

    entries: tuple[int, ...]
    low: int = field(init=False)
    high: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", self.entries[0])
        object.__setattr__(self, "high", self.entries[-1])

    @property
    def number(self) -> int:
        """The entries."""
        return len(self.entries)

    def nearest(self, place: Lanes, *, inside: bool = False) -> Lanes:
        """The steps from entry to entry, added up as far as `place` is beyond the middle between them."""
        result = splat(place.b, self.entries[0])
        for low, high in zip(self.entries, self.entries[1:], strict=False):
            result = result + (place > (low + high) / 2).where(splat(place.b, high - low), 0.0)
        return result

    def index(self, place: Lanes) -> Lanes:
        """How many middles `place` is beyond."""
        result = splat(place.b, 0.0)
        for low, high in zip(self.entries, self.entries[1:], strict=False):
            result = result + (place > (low + high) / 2).where(splat(place.b, 1.0), 0.0)
        return result.integer()
