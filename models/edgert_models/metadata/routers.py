"""Keys of routers, of shared experts and of which layers have experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgert_models.architecture import Architecture, FileHabits
from edgert_models.errors import UnsupportedError
from edgert_models.metadata.keys import Metadata, Value, has
from edgert_models.router import SOFTMAX, Router
from edgert_models.spec import ModelSpec

_GATING = {1: "softmax", 2: "sigmoid", 3: "softmax"}
"""What expert_gating_func says of the scoring: `llama_expert_gating_func_type` in llama.cpp's `llama-hparams.h`."""
_SOFTMAX_OF_CHOSEN = 3  # a softmax that is normalised over the chosen


def router_of(
    architecture: Architecture, metadata: Metadata, shapes: Mapping[str, tuple[int, ...]], layers: int
) -> Router:
    """The family's router, with what the file says of it."""
    name, usual = architecture.name, architecture.router
    number = metadata.integer(f"{name}.expert_gating_func", 0)
    if number and number not in _GATING:
        raise UnsupportedError(
            f"{name}.expert_gating_func is {number}; supported: 1 (softmax), 2 (sigmoid), 3 (softmax of the chosen)"
        )
    bias = any(has(shapes, layers, tensor) for tensor in ("exp_probs_b.bias", "exp_probs_b"))
    if bias and number == _SOFTMAX_OF_CHOSEN:
        raise UnsupportedError(
            f"{name}: a softmax of the chosen (expert_gating_func 3) with exp_probs_b is not supported"
        )
    groups = metadata.integer(f"{name}.expert_group_count", 1) or 1
    return replace(
        usual,
        scoring=_GATING.get(number, usual.scoring),
        normalize=metadata.boolean(f"{name}.expert_weights_norm", usual.normalize) or number == _SOFTMAX_OF_CHOSEN,
        scale=metadata.number(f"{name}.expert_weights_scale", usual.scale) or 1.0,
        bias=bias,
        groups=groups,
        groups_used=metadata.integer(f"{name}.expert_group_used_count", groups) or groups,
    )


def router_entries(files: FileHabits, spec: ModelSpec) -> dict[str, Value]:
    """Keys of the router, of shared experts and of dense layers, where they are more than a softmax says."""
    router = spec.router
    entries: dict[str, Value] = {"expert_weights_norm": router.normalize}
    if spec.shared_feed_forward:
        shared, rest = divmod(spec.shared_feed_forward, spec.expert_feed_forward)
        each = shared if files.width_of_one and not rest else 1
        entries["expert_shared_feed_forward_length"] = spec.shared_feed_forward // each
        if not spec.shared_gate:
            entries["expert_shared_count"] = 1 if rest else shared
    if spec.leading_dense or files.says_routing:
        entries["leading_dense_block_count"] = spec.leading_dense
    if files.says_step:
        first = spec.leading_dense
        later = (i for i in range(first + 1, spec.layers) if spec.has_experts(i))
        entries["interleave_moe_layer_step"] = next(later, 2 * first + 1) - first
    unusual = replace(router, normalize=True) != SOFTMAX or files.says_routing
    if router.scoring not in _GATING.values():
        return entries
    if unusual or "expert_shared_count" in entries:
        entries["expert_gating_func"] = next(key for key, value in _GATING.items() if value == router.scoring)
        entries["expert_weights_scale"] = router.scale
    if router.limited:
        entries["expert_group_count"] = router.groups
        entries["expert_group_used_count"] = router.groups_used
    return entries
