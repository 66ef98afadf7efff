"""Every barrier in the kernels is needed, and the shim notices when one is missing."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgert_models import ops
from edgert_quant.blocks import BlockType
from edgert_runtimes.conformance.tiny import normalized_error
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.kernels.kernel import Kernel, headers
from edgert_runtimes.reference.recurrent import delta_rule

from edgert.engine.params import SamplingParams
from edgert.engine.sampling import Sampler
from tests.runtimes.cuda.kernels.test_attention import Paged, last_rows, two_sequences
from tests.runtimes.cuda.kernels.test_experts import Layer, few, route
from tests.runtimes.cuda.kernels.test_heads import ready
from tests.runtimes.cuda.kernels.test_matrices import gemm
from tests.runtimes.cuda.kernels.test_sample import argmax, params, sample
from tests.support.cuda_host import HostKernels

F32, F16 = BlockType.F32, BlockType.F16
ROUTING = [catalogue.route(), catalogue.expert_counts(), catalogue.expert_order()]
EXPERTS = [catalogue.route(), catalogue.experts_up(F32, F32, "silu"), catalogue.experts_down(F32)]
ATTENTION = [catalogue.store(F16), catalogue.attend(F16, 64, 64, 5), catalogue.attend_combine(64)]


def experts(host: HostKernels) -> None:
    layer = Layer(F32, F32, "silu", False, rows=2, hidden=64, width=16, out=9)
    assert normalized_error(few(host, layer)[0], layer.reference()) < 1e-9


def routing(host: HostKernels) -> None:
    _, shares, _ = route(host, np.random.default_rng(0).standard_normal((9, 40), dtype=np.float32), 12)
    assert np.allclose(shares.sum(axis=1), 1)
    sorting(host)


def attention(host: HostKernels) -> None:
    cache, rows = Paged(host, F16, (64, 5)), last_rows()
    cache.fill(two_sequences())
    q = cache.queries(2)
    assert normalized_error(cache.attend(rows, q), cache.expected(rows, q, None)) < 1e-9


def tiles(host: HostKernels) -> None:
    cache, rows = Paged(host, F16, (64, 4)), two_sequences()
    cache.fill(rows)
    q = cache.queries(len(rows.tokens))
    assert normalized_error(cache.attend_tile(rows, q), cache.expected(rows, q, None)) < 1e-9


def heads(host: HostKernels) -> None:
    ready(host, F16, (64, 64), normalised=False, pairs=20)


def tokens(host: HostKernels) -> None:
    """Draws from rows with many equals, of which only some are kept."""
    logits = np.round(2 * np.random.default_rng(3).standard_normal((1, 2500), dtype=np.float32))
    rows, counts = np.repeat(logits, 20, axis=0), list(range(20))
    for case in (params(top_k=70, top_p=0.9), params(top_p=0.5), params(min_p=0.1)):
        sampler = Sampler(SamplingParams(**case), vocabulary=2500)
        expected = [sampler.choose(logits[0], range(count)).token for count in counts]
        drawn, certain = sample(host, rows, counts, **case)
        assert drawn == expected
        assert certain.count(-1) < 4
    assert argmax(host, logits)[0] == logits.argmax(axis=1).tolist()


def sorting(host: HostKernels) -> None:
    """With room for what goes to a wrong place."""
    ids = np.random.default_rng(0).integers(0, 6, 900, dtype=np.int32)
    counts, order, tiles = np.zeros(6, np.int32), np.zeros(1 << 16, np.int32), np.zeros((1 << 12, 4), np.int32)
    sizes = {"pairs": 900, "experts": 6}
    host.launch(catalogue.expert_counts(), ids=ids, counts=counts, **sizes)
    assert np.array_equal(counts, np.bincount(ids, minlength=6))
    host.launch(catalogue.expert_order(), ids=ids, counts=counts, order=order, tiles=tiles, most_tiles=30, **sizes)
    assert np.array_equal(order[:900], np.argsort(ids, kind="stable"))
    assert (tiles[:, 2] - tiles[:, 1]).sum() == 900


def linear(host: HostKernels) -> None:
    gemm(host, BlockType.Q4_K, 64, 128, 512)
    gemm(host, F32, 64, 128, 40)


def recurrence(host: HostKernels) -> None:
    """Keys of more elements than a warp has lanes, and more than a warp's columns of values; decays by channel."""
    rng = np.random.default_rng(0)
    shapes = {"qs": (3, 40), "ks": (3, 40), "vs": (3, 66), "a": (3, 80), "b": (3, 2), "decay": (2,), "bias": (80,)}
    given = {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    given["decay"] -= 1
    x, k, v, a, b, out = (ops.Value(number, width) for number, width in enumerate((40, 40, 66, 80, 2, 66)))
    names = {"decay": "decay", "bias": "bias"}
    op = ops.DeltaRule(out=out, x=x, k=k, v=v, a=a, b=b, **names, state=0, heads=2, key_heads=1, key_size=40)
    weights: Any = SimpleNamespace(vector=given.__getitem__)
    rows = (given[name].astype(np.float64) for name in ("qs", "a", "b", "ks", "vs"))
    expected, after = delta_rule(op, weights, np.zeros((2, 40, 33)), *rows)
    y, state = np.zeros((3, 66), np.float32), np.zeros((1, 2, 40, 33), np.float32)
    sizes = {"count": 1, "heads": 2, "key_heads": 1, "key_size": 40, "size": 33, "tiled": 0}
    sizes |= {"keys_stride": 40, "stride": 66, "floor": 0.0}
    runs = np.array([[0, 3, -1, 0]], np.int32)
    host.launch(catalogue.delta_rule(40, True), runs=runs, state=state, y=y, **given, **sizes)
    assert normalized_error(y, expected) < 1e-9
    assert normalized_error(state[0], after) < 1e-9


SCENES: dict[str, tuple[list[Kernel], Callable[[HostKernels], None]]] = {
    "gemm.cuh": ([catalogue.gemm(BlockType.Q4_K), catalogue.gemm(F32)], linear),
    "experts.cuh": (EXPERTS, experts),
    "route.cuh": (ROUTING, routing),
    "attend.cuh": (ATTENTION, attention),
    "attend_tile.cuh": ([catalogue.store(F16), catalogue.attend_tile(F16, 64, 4)], tiles),
    "heads.cuh": ([catalogue.heads(F16, 64, 64)], heads),
    "sample.cuh": ([catalogue.sample(), catalogue.argmax()], tokens),
    "recurrent.cuh": ([catalogue.delta_rule(40, True)], recurrence),
    "base.cuh": (ROUTING, routing),
}
ORDERS = range(6)
BARRIERS = "__syncthreads();", "__syncwarp();"


def barriers() -> Iterator[tuple[str, str, int]]:
    for header, text in headers().items():
        for barrier in BARRIERS:
            yield from ((header, barrier, i) for i in range(text.count(barrier)))


def without(header: str, barrier: str, index: int) -> Callable[[str, str], str]:
    """A change of the sources that takes one barrier out."""

    def change(name: str, text: str) -> str:
        if name != header:
            return text
        parts = text.split(barrier)
        return barrier.join(parts[: index + 1]) + ";" + barrier.join(parts[index + 1 :])

    return change


def passes(host: HostKernels, header: str, order: int) -> bool:
    """Whether the scene of a header gives what it should, with threads in this order."""
    host.order = order
    try:
        SCENES[header][1](host)
    except (AssertionError, RuntimeError, RuntimeWarning):
        return False
    return True


@pytest.mark.parametrize("header", SCENES)
def test_results_do_not_depend_on_the_order_of_threads(header: str) -> None:
    host = HostKernels(SCENES[header][0])
    assert [order for order in ORDERS if not passes(host, header, order)] == []


@pytest.mark.parametrize(("header", "barrier", "index"), list(barriers()), ids=lambda item: str(item).strip("_();"))
def test_a_missing_barrier_is_noticed(header: str, barrier: str, index: int) -> None:
    host = HostKernels(SCENES[header][0], without(header, barrier, index))
    assert not all(passes(host, header, order) for order in ORDERS)
