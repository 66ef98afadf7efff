"""How many tokens each expert has seen."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from edgert_models.errors import ConversionError, EdgertError
from numpy.typing import NDArray

from edgert_quant.imatrix.importance import POOL_ROWS, Importance

_LAYER = re.compile(r"(blk\.\d+)\.")


@dataclass(frozen=True)
class LayerCoverage:
    """The experts of one layer, such as `blk.3`: tokens that chose each, int64 [experts]."""

    layer: str
    tokens: NDArray[np.int64]

    @property
    def least(self) -> int:
        """Of the rarest expert."""
        return int(self.tokens.min())

    @property
    def median(self) -> float:
        """Over the experts."""
        return float(np.median(self.tokens))

    def below(self, threshold: int) -> list[int]:
        """Experts that fewer tokens chose, the rarest first."""
        order = np.argsort(self.tokens, kind="stable")
        return [int(expert) for expert in order if self.tokens[expert] < threshold]

    def plain(self, threshold: int) -> dict[str, object]:
        """For JSON."""
        return {
            "layer": self.layer,
            "experts": len(self.tokens),
            "least": self.least,
            "median": self.median,
            "below": self.below(threshold),
        }


def coverage(importance: Importance) -> tuple[LayerCoverage, ...]:
    """Of every layer with experts, in their order: for each expert the least that any of its matrices has seen.

    Empty for models without experts, and where the file does not say (`Importance.counted`).
    """
    found: dict[str, NDArray[np.int64]] = {}
    for name, sums in importance.sums.items():
        match = _LAYER.match(name)
        if match is None or not sums.by_expert or not importance.counted:
            continue
        known = found.get(match[1])
        same = known is not None and len(known) == len(sums.counts)
        found[match[1]] = np.minimum(known, sums.counts) if known is not None and same else sums.counts
    return tuple(LayerCoverage(layer, found[layer]) for layer in sorted(found, key=lambda name: int(name[4:])))


def require_coverage(
    importance: Importance, tokens: int, error: type[EdgertError] = ConversionError, remedy: str = "calibrate with more"
) -> None:
    """Raise `error` for the rarest expert of the first layer where one has seen fewer tokens than that."""
    if not importance.counted and any(sums.by_expert for sums in importance.sums.values()):
        raise error(f"{importance.path}: does not say how many tokens each expert has seen; {remedy}")
    for layer in coverage(importance):
        rare = layer.below(tokens)
        if rare:
            more = f" (and {len(rare) - 1} more of this layer)" if len(rare) > 1 else ""
            raise error(
                f"{importance.path}: expert {rare[0]} of {layer.layer} has seen {layer.least} tokens, fewer than "
                f"{tokens}{more}; {remedy}"
            )


def rare_experts(importance: Importance) -> str | None:
    """A sentence about experts that have seen so little that their layer's pool decides more than they do, if any."""
    rare = [layer for layer in coverage(importance) if layer.least < POOL_ROWS]
    if not rare:
        return None
    count = sum(len(layer.below(POOL_ROWS)) for layer in rare)
    layer = min(rare, key=lambda each: each.least)
    who = "1 expert has" if count == 1 else f"{count} experts have"
    return (
        f"{who} seen fewer than {POOL_ROWS} tokens, so that what is important in them is taken rather from their "
        f"layer; the rarest is expert {layer.below(POOL_ROWS)[0]} of {layer.layer}, with {layer.least}; calibrate with "
        "more text"
    )
