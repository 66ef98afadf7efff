"""How much a session is given: rows, sequences, and the pool of cache blocks."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgert_models.errors import MemoryBudgetError, RequestError
from edgert_models.graph import Plan, Role
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Limits, Session, WeightProvider
from edgert_runtimes.kv_types import KV_TYPES, check_kv_type

from edgert.engine.windows import window_blocks

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
    windows: bool = True,
) -> list[Limits]:
    """Limits to try in turn, the roomiest first; the last has a pool for just one whole context.

    The first has a pool for `sequences` whole contexts; without `memory`, for less where it would take more than
    POOL_BYTES. Sequences share the pool: more of them fit where they are shorter. Layers with a window have blocks of
    their own where these are fewer, unless `windows` says no: enough for what as many sequences see at once, and for as
    many prefixes. RequestError names what is out of range. A context beyond the one the model was trained for is a
    warning: what comes out there may be noise.
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
    state_bytes = 4 * sum(state.size for state in plan.states)
    # Two for each sequence; beside them checkpoints, as many as are cheap.
    states = 2 * sequences + max(1, min(MOST_CHECKPOINTS, CHECKPOINT_BYTES // state_bytes)) if state_bytes else 0
    one = Limits(
        context=context,
        rows=rows,
        sequences=sequences,
        blocks=-(-context // Limits.block_size),
        kv_type=kv_type,
        threads=threads,
        memory=memory,
        states=states,
    )
    return _pools(plan, one, windows=windows)


def _pools(plan: Plan, one: Limits, *, windows: bool) -> list[Limits]:
    """Limits with pools of several sizes, the largest first; `one` has the blocks of one whole context. Of the two
    pools the one that takes more is the next to become smaller.
    """
    least, most = one.blocks, one.blocks * one.sequences
    few, many = (window_blocks(plan.reach, count, one) for count in (1, 2 * one.sequences))
    kind = KV_TYPES[one.kv_type]
    sizes = [(one.block_size * kind.row_bytes(cache.width), cache.window) for cache in plan.caches]
    within, others = (sum(size for size, window in sizes if bool(window) is each) for each in (True, False))
    if not windows or not within or few >= least:
        few = many = most

    def bytes_of(blocks: int, own: int) -> int:
        return others * blocks + within * min(blocks, own)

    def limits(pool: tuple[int, int]) -> Limits:
        blocks, own = pool
        if own >= blocks:
            return replace(one, blocks=blocks)
        # Blocks of no layer take no memory, and what they stand for is to be found while it is there.
        return replace(one, blocks=blocks if others else 2 * most, window_blocks=own)

    pools = [(most, many)]
    while (pool := pools[-1]) != (least, few):
        blocks, own = pool
        shorter = own == few or (blocks > least and others * blocks >= within * own)
        pools.append((max(least, blocks // 2), own) if shorter else (blocks, max(few, own // 2)))
    if one.memory is None:
        cheap = max(few, min(many, POOL_BYTES // 8 // max(1, within)))
        most_bytes = max(POOL_BYTES, bytes_of(least, cheap))
        pools = [pool for pool in pools if bytes_of(*pool) <= most_bytes or pool == (least, few)]
        blocks, own = pools[0]
        more = bisect_right(range(blocks, most + 1), most_bytes, key=lambda count: bytes_of(count, own))
        pools.insert(0, (max(blocks, blocks + more - 1), own))
    return list(dict.fromkeys(map(limits, pools)))


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
