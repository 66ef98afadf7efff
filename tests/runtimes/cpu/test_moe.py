"""Experts are divided by work: every unit once, in chunks of equal cost, whatever the routing."""

import heapq

import numpy as np
import pytest
from edgert_quant.jit import kernel
from edgert_quant.jit.primitives import store_i64
from edgert_runtimes.cpu.kernels import moe, route, table
from edgert_runtimes.cpu.kernels.moe import line_of_chunk, prepare_outward, units_between


@kernel
def units_of_chunk(record: int, i: int, chunk: int, out: int) -> None:
    low, high = line_of_chunk(record, chunk)
    first, end = units_between(record, i, low, high)
    store_i64(out, 0, first)
    store_i64(out, 1, end)


class Division:
    """What `prepare_outward` makes of experts with so many rows, on some threads."""

    def __init__(self, rows: list[int], panels: int, threads: int, strip: int = 2, k: int = 1024) -> None:
        experts = [i for i, count in enumerate(rows) if count]
        self.rows = [rows[i] for i in experts]
        self.record, state = np.zeros(table.RECORD_WORDS, np.int64), np.zeros(table.STATE_WORDS, np.int64)
        arrays = {
            moe.SOURCE: np.array([len(experts)]),
            route.STARTS: np.concatenate([[0], np.cumsum(rows)]).astype(np.int32),
            route.ACTIVE: np.array(experts, np.int32),
            moe.COSTS: (costs := np.zeros(len(experts) + 1, np.int64)),
        }
        for number, array in arrays.items():
            self.record[number] = array.ctypes.data
        self.record[moe.K], self.record[moe.N_PANELS], self.record[moe.GATE_ROW_BYTES] = k, panels, 576
        self.record[moe.STRIP] = strip
        state[table.THREADS] = threads
        self.chunks = prepare_outward(state.ctypes.data, self.record.ctypes.data)
        self.record[table.CHUNKS] = self.chunks
        units = [-(-panels // strip) * -(-count // table.TOKEN_TILE) for count in self.rows]
        self.unit_costs = [int(cost) // count for cost, count in zip(np.diff(costs), units, strict=True)]
        found = np.zeros(2, np.int64)
        self.taken = [np.zeros(count, np.int64) for count in units]
        self.costs = []
        for chunk in range(self.chunks):
            cost = 0
            for i in range(len(experts)):
                units_of_chunk(self.record.ctypes.data, i, chunk, found.ctypes.data)
                first, end = map(int, found)
                self.taken[i][first:end] += 1
                cost += max(0, end - first) * self.unit_costs[i]
            self.costs.append(cost)
        del arrays

    def busiest(self, threads: int) -> float:
        """The time of the thread that works longest, in shares of a perfect division."""
        ends = [0] * threads
        for cost in self.costs:
            heapq.heapreplace(ends, ends[0] + cost)
        return max(ends) * threads / sum(self.costs)


ROUTINGS = {
    "even": [64] * 64,
    "skewed": [3, 0, 1, 5] * 15 + [0, 4000, 0, 2],
    "skewed, first": [4000] + [1, 0, 2] * 20,
    "one row": [0, 1, 0, 1] * 4,
    "one expert": [0, 0, 700],
    "few": [7, 1],
}


@pytest.mark.parametrize("rows", ROUTINGS.values(), ids=ROUTINGS.keys())
@pytest.mark.parametrize("panels", [1, 2, 7, 64])
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("strip", [2, 16])
def test_every_unit_is_done_once_in_chunks_of_equal_cost(
    rows: list[int], panels: int, threads: int, strip: int
) -> None:
    division = Division(rows, panels, threads, strip)
    assert all((taken == 1).all() for taken in division.taken)
    assert threads > 1 or division.chunks == 1
    assert max(division.costs) <= sum(division.costs) / division.chunks + max(division.unit_costs)


@pytest.mark.parametrize("name", ["even", "skewed", "skewed, first"])
@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize(("strip", "limit"), [(2, 1.05), (16, 1.1)])
def test_no_thread_works_much_longer_than_the_others(name: str, threads: int, strip: int, limit: float) -> None:
    assert Division(ROUTINGS[name], 64, threads, strip).busiest(threads) < limit


def test_nobody_has_an_expert() -> None:
    assert Division([0, 0, 0], 64, 2).chunks == 0
