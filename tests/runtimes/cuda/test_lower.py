"""Plans of real sizes become the launches that they should; nothing is loaded or run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan, Role
from edgert_models.registry import build_plan
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Limits
from edgert_runtimes.conformance.tiny import batch, limits, tiny_spec
from edgert_runtimes.cuda.attention import splits_for, tile_rows
from edgert_runtimes.cuda.lower import lower
from edgert_runtimes.cuda.program import Memory, Program, Shape
from edgert_runtimes.cuda.session import graph_rows, tiles_of
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.synthetic import SHAPES

A3B = SHAPES["qwen3"]
"""Qwen3-30B-A3B."""
LIMITS = Limits(context=4096, rows=512, sequences=8, blocks=2048, kv_type="f16")
INPUTS = dict.fromkeys(("tokens", "positions", "sequence", "slots", "tables", "pick", "tiles", "adapters", "count"), 1)


def types_of(plan: Plan, matrices: BlockType) -> dict[str, BlockType]:
    kept = (Role.VECTOR, Role.ROUTER)
    return {name: BlockType.F32 if weight.role in kept else matrices for name, weight in plan.weights.items()}


def lowered(plan: Plan, slots: Mapping[int, int] | None = None) -> Program:
    return lower(plan, types_of(plan, BlockType.Q4_K), slots or {}, LIMITS, 132)


def launched(plan: Plan, program: Program, shape: Shape) -> Counter[str]:
    places = dict.fromkeys([*plan.weights, *range(8)], 1)
    memory = Memory(1 << 40, 1 << 41, INPUTS, places, places)  # type: ignore[arg-type]
    found = [launch for work in program.works for launch in work.launches(shape, memory)]
    assert all(launch.grid > 0 for launch in found)
    return Counter(launch.kernel.call.partition("<")[0] for launch in found)


def test_decoding_one_token_of_a3b() -> None:
    """Eleven launches a layer: residuals are added by products, inputs quantized where they are made, and matrices that
    read the same rows multiplied at once.
    """
    plan = build_plan(A3B)
    program = lowered(plan)
    found = launched(plan, program, Shape(1, 1, splits=4))
    each = {
        "rms_norm": 2 * 48 + 1,
        "linear_several": 48,  # queries, keys, values
        "linear": 2 * 48 + 1,  # output, router
        "heads": 48,
        "attend": 48,
        "attend_combine": 48,
        "route": 48,
        "experts_up": 48,
        "experts_down": 48,
    }
    assert found == {**each, "embed": 1, "angles": 1, "pick_rows": 1}
    assert program.cache_bytes >= 2 * 48 * 2049 * 16 * 4 * 128 * 2
    assert program.workspace_bytes < 150 << 20


def test_many_rows_of_a3b_are_sorted_by_expert() -> None:
    plan = build_plan(A3B)
    found = launched(plan, lowered(plan), Shape(512, 1, tiles=64))
    assert found["experts_gemm"] == 3 * 48
    assert found["gemm"] == 5 * 48
    assert found["linear"] == 1  # the output, of the one row that is picked
    assert found["attend_tile"] == found["heads"] == 48
    assert found["expert_counts"] == found["expert_order"] == found["combine"] == 48
    assert "attend" not in found
    assert "add" not in found


def test_experts_elsewhere_bring_an_exchange() -> None:
    plan = build_plan(A3B)
    mixtures = [index for index, op in enumerate(plan.ops) if type(op).__name__ == "Moe"]
    program = lowered(plan, dict.fromkeys(mixtures, 1000))
    before = [work.before.op for work in program.works if work.before is not None]
    needs = [work.needs.op for work in program.works if work.needs is not None]
    assert before == needs == mixtures
    assert launched(plan, program, Shape(1, 1))["add"] == 48  # what the host computed


def test_places_that_are_used_at_once_are_apart() -> None:
    """While an op runs, what it reads and what it writes: but where it may write what it reads."""
    plan = build_plan(tiny_spec("qwen2moe", shared_feed_forward=64))
    program = lower(plan, types_of(plan, BlockType.F32), {}, limits(), 4)
    sizes = {value.id: 4 * 256 * value.width for value in plan.values}
    last = {value.id: index for index, op in enumerate(plan.ops) for value in op.inputs}
    alive: dict[int, tuple[int, int]] = {}
    for index, op in enumerate(plan.ops):
        if op.out.id in program.places:
            start = program.places[op.out.id]
            mine = (start, start + sizes[op.out.id])
            for value, span in alive.items():
                same = span == mine and value in {each.id for each in op.inputs}
                dies = last[value] <= index
                assert same or dies or mine[1] <= span[0] or span[1] <= mine[0], (op, value)
            alive[op.out.id] = mine
        alive = {value: span for value, span in alive.items() if last.get(value, index) > index}


def test_ops_of_all_rows_after_picked_ones_are_refused() -> None:
    graph = Graph(tiny_spec())
    x = graph.embed()
    picked = graph.pick_rows(x)
    graph.rms_norm(x, "norm.weight")
    plan = graph.plan(picked, picked)
    with pytest.raises(UnsupportedError, match="op RmsNorm of all rows after rows were picked is not supported"):
        lower(plan, types_of(plan, BlockType.F32), {}, limits(), 4)


@given(
    rows=st.integers(1, 64), longest=st.integers(1, 1 << 20), heads=st.integers(1, 64), processors=st.integers(1, 300)
)
def test_positions_are_divided_where_there_is_room_and_work(
    rows: int, longest: int, heads: int, processors: int
) -> None:
    splits = splits_for(rows, longest, heads, processors)
    assert splits & (splits - 1) == 0
    assert splits == 1 or (splits * rows * heads <= 2 * processors and splits * 64 <= longest)


@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=5), most=st.integers(1, 64))
def test_tiles_cover_every_row_once_and_no_two_sequences(lengths: list[int], most: int) -> None:
    step = batch([([1] * length, 0, range(5)) for length in lengths])
    tiles = tiles_of(step, most)
    covered = [row for first, count in tiles for row in range(first, first + count)]
    assert covered == list(range(sum(lengths)))
    assert all(count <= most and len(set(step.sequence[first : first + count])) == 1 for first, count in tiles)


@given(count=st.integers(1, 512))
def test_padded_rows(count: int) -> None:
    rows = graph_rows(count, limits(rows=512))
    assert count <= rows <= max(8, 2 * count)
    assert count > 8 or rows == count


def test_tiles_need_heads_that_fit() -> None:
    plan = build_plan(A3B)
    assert tile_rows(plan, BlockType.F16) == 8
    assert tile_rows(plan, BlockType.F32) == 0
    assert tile_rows(build_plan(tiny_spec()), BlockType.Q8_0) == 0  # heads of 16
