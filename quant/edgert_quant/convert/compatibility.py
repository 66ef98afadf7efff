"""Where a file of ours means something that llama.cpp does not do: what architectures say of it, for one model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from edgert_models.architecture import Architecture
from edgert_models.registry import architecture_named
from edgert_models.spec import ModelSpec


def wants_own_output(spec: ModelSpec) -> bool:
    """Whether llama.cpp loads this model only with an output matrix beside the embedding that it is tied to."""
    return spec.tied and architecture_named(spec.architecture).llama_cpp.own_output


def llama_cpp_differences(spec: ModelSpec) -> list[str]:
    """A sentence for each thing that llama.cpp would compute differently, or not load."""
    architecture = architecture_named(spec.architecture)
    if not architecture.llama_cpp.known:
        return [f"llama.cpp will not load the file: it does not know the architecture {spec.architecture}"]
    refused = [f"llama.cpp will not load the file: {reason}" for reason in _refusals(architecture, spec)]
    return [*_differences(architecture, spec), *refused]


def _differences(architecture: Architecture, spec: ModelSpec) -> Iterator[str]:
    stock, name = architecture.llama_cpp, spec.architecture
    if spec.experts and stock.normalizes is True and not spec.router.normalize:
        yield f"llama.cpp scales the weights of the chosen experts to sum to one in {name}; this model does not"
    if spec.experts and stock.normalizes is False and spec.router.normalize:
        yield f"llama.cpp does not scale the weights of the chosen experts to sum to one in {name}; this model does"
    if spec.experts and spec.router.limited and spec.router.group_best != 2:
        yield "llama.cpp ranks groups of experts by the sum of their best two; this model by their best"
    theirs = replace(spec.rope, beta_fast=32.0, beta_slow=1.0, truncate=True)
    if spec.rope.frequencies() != theirs.frequencies():
        yield (
            f"llama.cpp takes yarn's beta_fast as 32, beta_slow as 1 and truncate as true in {name}, "
            "whatever the model says: it turns positions by other angles, and answers differently far into a text"
        )
    if spec.window and spec.window < spec.context and not stock.windows:
        yield (
            f"llama.cpp ignores the sliding window of {spec.window} positions in {name}: "
            "it answers differently beyond them"
        )
    unsaid = replace(spec, scales=replace(spec.scales, attention=None))
    usual, scale = _score_scale(architecture.settle(unsaid)), _score_scale(spec)
    if not stock.score_scale and not math.isclose(usual, scale, rel_tol=1e-6):
        yield f"llama.cpp scales scores of attention by {usual:.4g} in {name}, this model does by {scale:.4g}"
    yield from filter(None, (remark(spec) for remark in stock.differs))


def _refusals(architecture: Architecture, spec: ModelSpec) -> Iterator[str]:
    stock, name = architecture.llama_cpp, spec.architecture
    if stock.always_tied and not spec.tied:
        yield f"it knows no output matrix in {name}"
    if spec.feed_forward_bias and not stock.feed_forward_bias:
        yield f"it knows no biases of the feed-forward network in {name}"
    if wants_own_output(spec):
        yield f"it wants an output matrix in {name}"
    if stock.dense_layers == "none" and not all(spec.sparse):
        yield f"it wants experts in every layer of {name}"
    elif stock.dense_layers != "any" and not all(spec.sparse[spec.leading_dense :]):
        yield f"it knows dense layers of {name} only before the first with experts"
    if spec.rope.factors and not stock.rope_factors:
        yield f"it knows no rope scaling llama3 in {name}"
    if stock.as_wide and spec.query_width != spec.width:
        yield f"it wants query heads together as wide as the model in {name}"
    if spec.output_bias and not stock.output_bias:
        yield f"it knows no bias of the attention output in {name}"
    if not any(map(spec.attends, range(spec.layers))):
        yield f"it wants a layer that attends in {name}"
    yield from filter(None, (remark(spec) for remark in stock.refuses))


def _score_scale(spec: ModelSpec) -> float:
    """What scores of attention are multiplied with."""
    return spec.scales.attention or spec.head_size**-0.5
