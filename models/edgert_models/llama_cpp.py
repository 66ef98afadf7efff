"""What stock llama.cpp makes of a family's files, where that is not what the model says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgert_models.spec import ModelSpec

Remark = Callable[[ModelSpec], str]
"""What is to be said of a model, an empty text if nothing is."""


@dataclass(frozen=True, kw_only=True)
class LlamaCpp:
    """What its `src/models/*.cpp` do with a family. The converter warns of it (`edgert_quant.convert.compatibility`).

    `known`: it has the architecture. It loads only: models with an output matrix beside the embedding that it is tied
    to (`own_output`), or without (`always_tied`); query heads that are together as wide as the model (`as_wide`);
    biases of the attention output where `output_bias`, of feed-forward networks where `feed_forward_bias`; factors of
    rope (llama3) where `rope_factors`; `dense_layers` before the first with experts ("leading"), anywhere ("any") or
    not at all ("none"); and none for which one of `refuses` has a reason. It reads `windows`, the `score_scale`, and
    whether the weights of experts are scaled to sum to one, unless it does that always or never (`normalizes`).
    `differs` say what else it computes differently.
    """

    known: bool = True
    own_output: bool = False
    always_tied: bool = False
    as_wide: bool = False
    output_bias: bool = True
    feed_forward_bias: bool = True
    rope_factors: bool = False
    dense_layers: str = "leading"
    windows: bool = False
    score_scale: bool = False
    normalizes: bool | None = None
    refuses: tuple[Remark, ...] = ()
    differs: tuple[Remark, ...] = ()


AS_OURS = LlamaCpp()


def sees_the_same(spec: ModelSpec, window: int) -> bool:
    """Whether a model without windows, or with its own, sees the same in windows of so many positions."""
    return not spec.window or min(spec.window, spec.context) == min(window, spec.context)
