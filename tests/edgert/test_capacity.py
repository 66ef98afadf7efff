from typing import Any

import pytest
from edgert_models import build_plan
from edgert_models.errors import RequestError
from edgert_models.rope import Rope, RopeLayout
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Limits, StoredWeight
from edgert_runtimes.conformance.tiny import tiny_spec

from edgert.capacity import POOL_BYTES, choose_limits


class Stored:
    def __init__(self, plan: Any, type_: BlockType) -> None:
        self.weights = {name: StoredWeight(type_, weight.shape) for name, weight in plan.weights.items()}


def chosen(spec: dict[str, Any] | None = None, type_: BlockType = BlockType.F32, **options: Any) -> list[Limits]:
    plan = build_plan(tiny_spec(**(spec or {})))
    given = {"context": None, "sequences": 4, "rows": 64, "kv_type": "auto", "threads": None, "memory": None, **options}
    return choose_limits(plan, Stored(plan, type_), **given)  # type: ignore[arg-type]


def test_context_is_the_models_up_to_4096() -> None:
    assert chosen()[0].context == 256
    assert chosen({"context": 131072})[0].context == 4096
    assert chosen({"context": 131072}, context=8192)[0].context == 8192


def test_context_keeps_within_that_of_short_factors() -> None:
    scaled = {"rope": Rope(dims=16, layout=RopeLayout.HALVES, scaling="longrope", original_context=512)}
    assert chosen({"context": 131072, **scaled})[0].context == 512
    assert chosen({"context": 131072, **scaled}, context=8192)[0].context == 8192


def test_a_context_beyond_the_trained_one_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="trained for a context of 256; answers beyond it, to 257, may degrade"):
        assert chosen(context=257)[0].context == 257


def test_the_pool_holds_every_sequence_whole_where_that_is_cheap() -> None:
    limits = chosen(context=100)[0]
    assert limits.blocks == 4 * 7
    assert (limits.rows, limits.sequences, limits.threads) == (64, 4, None)


def test_the_pool_is_bounded_but_holds_one_context() -> None:
    # 2 layers, keys and values of 8192 elements in F32: 131072 bytes a position, 2 MiB a block of 16.
    large = {"context": 65536, "heads": 64, "kv_heads": 64, "head_size": 128}
    assert chosen(large, context=4096)[0].blocks == POOL_BYTES // 2**21
    (limits,) = chosen(large, context=65536)
    assert limits.blocks == 65536 // 16


def test_smaller_pools_are_tried_where_the_first_does_not_fit() -> None:
    assert [limits.blocks for limits in chosen(context=256)] == [64, 32, 16]
    tried = chosen(context=200, sequences=3, memory=10**9)
    assert [limits.blocks for limits in tried] == [39, 19, 13]
    assert all(limits.memory == 10**9 for limits in tried)


def cache_bytes(limits: Limits) -> int:
    """Of the two layers of `WINDOWED`, the first with a window: keys and values of 2 heads of 16 in F32."""
    return 16 * 256 * (limits.blocks + (limits.window_blocks or limits.blocks))


WINDOWED = {"architecture": "llama", "windowed": (True, False), "window": 128, "context": 131072}


def test_layers_with_a_window_have_blocks_of_their_own_where_these_are_fewer() -> None:
    short, long, longer = (chosen(WINDOWED, context=context, memory=1 << 40)[0] for context in (128, 4096, 65536))
    assert short.window_blocks == 0
    # What each of eight sequences, four of them prefixes, sees: 10 blocks; and 64 rows of a step.
    assert long.window_blocks == longer.window_blocks == 8 * 10 + 4
    assert cache_bytes(longer) - cache_bytes(long) == 16 * 256 * 4 * (65536 - 4096) // 16
    assert chosen(WINDOWED, context=4096, windows=False)[0].window_blocks == 0
    assert chosen({**WINDOWED, "chunked": True}, context=4096)[0].window_blocks == 84


def test_blocks_that_no_layer_has_cost_nothing() -> None:
    every = {**WINDOWED, "windowed": ()}
    assert [(each.blocks, each.window_blocks) for each in chosen(every, context=4096, memory=1 << 40)] == [
        (2048, 84),
        (2048, 42),
        (2048, 21),
        (2048, 14),
    ]


def test_a_context_fits_where_it_would_not_with_all_its_blocks() -> None:
    # 32 layers, all but one with a window: 2 MiB a block of each.
    layers = {"windowed": (True,) * 31 + (False,), "layers": 32, "heads": 64, "kv_heads": 64, "head_size": 128}
    large = {**WINDOWED, **layers}
    tried = chosen(large, context=8192, sequences=8)
    assert all(limits.window_blocks for limits in tried)
    sizes = [2**20 * (limits.blocks + 31 * limits.window_blocks) for limits in tried]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] <= POOL_BYTES or len(tried) == 1
    assert (tried[-1].blocks, tried[-1].window_blocks) == (8192 // 16, 14)


def test_the_cache_is_f32_where_the_weights_are_floats() -> None:
    assert chosen()[0].kv_type == "f32"
    assert chosen(type_=BlockType.BF16)[0].kv_type == "f32"
    assert chosen(type_=BlockType.Q8_0)[0].kv_type == "f16"
    assert chosen(type_=BlockType.Q4_K, kv_type="f32")[0].kv_type == "f32"
    assert chosen(kv_type="f16")[0].kv_type == "f16"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"context": 0}, "context must be an integer from 1, not 0"),
        ({"context": True}, "context must be an integer from 1, not True"),
        ({"sequences": 0}, "sequences must be an integer from 1"),
        ({"rows": 3}, "rows is 3: a step needs a row for each of the 4 sequences"),
        ({"threads": -1}, "threads must be an integer from 1"),
        ({"memory": 1.5}, "memory must be an integer from 1"),
        ({"kv_type": "q3"}, "kv_type must be one of auto, f32, f16, bf16, q8_0, q4_0, not 'q3'"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(options: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        chosen(**options)
    assert caught.value.parameter in match
