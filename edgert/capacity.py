"""How much a session is given: rows, sequences, and the pool of cache blocks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from edgert_models.errors import MemoryBudgetError, RequestError
from edgert_models.graph import Plan, Role
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Limits, Session, WeightProvider
from edgert_runtimes.kv_types import KV_TYPES, check_kv_type

DEFAULT_CONTEXT = 4096
DEFAULT_ROWS = 512  # a piece of a prompt: large enough for matrix kernels, short enough to stop between two
DEFAULT_SEQUENCES = 8
POOL_BYTES = 1 << 30  # the cache's size where no `memory` is given and one context does not need more
CHECKPOINT_BYTES = 1 << 28  # of recurrent states that are kept for prefixes
MOST_CHECKPOINTS = 64
_FLOATS = (BlockType.F32, BlockType.F16, BlockType.BF16)


def choose_limits(
    plan: Plan,
    weights: WeightProvider,
    *,
    context: int | None,
    sequences: int,
    rows: int,
    kv_type: str,
    threads: int | None,
    memory: int | None,
) -> list[Limits]:
    """Limits to try in turn, the roomiest first; the last has a pool for just one whole context.

    The first has a pool for `sequences` whole contexts; without `memory`, for less where it would take more than
    POOL_BYTES. Sequences share the pool: more of them fit where they are shorter. RequestError names what is out of
    range. A context beyond the one the model was trained for is a warning: what comes out there may be noise.
    """
    given = {"sequences": sequences, "rows": rows, "context": context, "threads": threads, "memory": memory}
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise RequestError(f"{name} must be an integer from 1, not {value!r}", parameter=name)
    if context is None:
        context = min(DEFAULT_CONTEXT, plan.spec.usual_context)
    if context > plan.spec.context:
        warnings.warn(
            f"the model was trained for a context of {plan.spec.context}; answers beyond it, to {context}, may degrade",
            UserWarning,
            stacklevel=3,
        )
    if rows < sequences:
        reason = f"rows is {rows}: a step needs a row for each of the {sequences} sequences"
        raise RequestError(reason, parameter="rows")
    if kv_type == "auto":
        kv_type = "f32" if _all_floats(plan, weights) else "f16"
    if kv_type not in KV_TYPES:
        raise RequestError(f"kv_type must be one of auto, {', '.join(KV_TYPES)}, not {kv_type!r}", parameter="kv_type")
    check_kv_type(kv_type, plan)
    block_size = Limits.block_size
    least = -(-context // block_size)
    state_bytes = 4 * sum(state.size for state in plan.states)
    # Two for each sequence; beside them checkpoints, as many as are cheap.
    states = 2 * sequences + max(1, min(MOST_CHECKPOINTS, CHECKPOINT_BYTES // state_bytes)) if state_bytes else 0
    block_bytes = block_size * sum(KV_TYPES[kv_type].row_bytes(cache.width) for cache in plan.caches)
    blocks = least * sequences
    if memory is None:
        blocks = max(least, min(blocks, POOL_BYTES // max(1, block_bytes)))
    sizes = [blocks]
    while blocks > least:
        blocks = max(least, blocks // 2)
        sizes.append(blocks)
    return [
        Limits(
            context=context,
            rows=rows,
            sequences=sequences,
            blocks=size,
            block_size=block_size,
            kv_type=kv_type,
            threads=threads,
            memory=memory,
            states=states,
        )
        for size in sizes
    ]


def _all_floats(plan: Plan, weights: WeightProvider) -> bool:
    stored = weights.weights
    matrices = [name for name, weight in plan.weights.items() if weight.role is Role.MATRIX or weight.role.stacked]
    return all(name in stored and stored[name].type in _FLOATS for name in matrices)


def first_that_fits(limits: Sequence[Limits], load: Callable[[Limits], Session]) -> Session:
    """A session with the first of `limits` that fits the memory."""
    for chosen in limits[:-1]:
        try:
            return load(chosen)
        except MemoryBudgetError:
            continue
    return load(limits[-1])
