"""Operations on rows, against the reference's ops or NumPy."""

import numpy as np
import pytest
from edgert_models import ops
from edgert_models.rope import RopeLayout
from edgert_quant.blocks import BlockType
from edgert_runtimes.conformance.tiny import batch, normalized_error
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.reference import ops as reference
from edgert_runtimes.weights import MemoryWeights

from tests.support.cuda_blocks import unpacked
from tests.support.cuda_host import HostKernels

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def host() -> HostKernels:
    rows = [catalogue.gate_rows(kind) for kind in catalogue.ROW_GATES]
    gates = [catalogue.gate(kind) for kind in catalogue.ACTIVATIONS]
    ropes = [catalogue.rope(layout) for layout in RopeLayout]
    plain = [catalogue.rms_norm(), catalogue.rms_norm_groups(), catalogue.angles(), catalogue.add()]
    return HostKernels([*gates, *ropes, *plain, *rows, catalogue.pick_rows(), catalogue.combine()])


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def value(array: np.ndarray, id_: int = 0) -> ops.Value:
    return ops.Value(id_, array.shape[1])


def norm(x: np.ndarray, weight: np.ndarray, groups: int = 1) -> np.ndarray:
    op = ops.RmsNorm(out=value(x, 1), x=value(x), weight="w", eps=1e-5, groups=groups)
    provider = MemoryWeights({"w": (BlockType.F32, weight.shape, weight.reshape(1, -1).view(np.uint8))})
    return reference.rms_norm(op, reference.Weights(provider), x.astype(np.float64))


@pytest.mark.parametrize("width", [1, 31, 64, 96, 300, 2048])
def test_rms_norm(host: HostKernels, width: int) -> None:
    x, weight = random(3, width), random(width)
    x[1] *= 1e4
    y = np.empty_like(x)
    empty = {"add": None, "sum": None, "codes": None, "scales": None}
    host.launch(catalogue.rms_norm(), x=x, weight=weight, y=y, **empty, eps=1e-5, rows=3, width=width)
    assert normalized_error(y, norm(x, weight)) < 1e-12


@pytest.mark.parametrize("keep", [True, False])
def test_rms_norm_of_a_sum_in_blocks(host: HostKernels, keep: bool) -> None:
    x, add, weight = random(4, 320), random(4, 320), random(320)
    both, y = x + add, np.empty_like(x)
    codes, scales = np.empty(x.shape, np.int8), np.empty((4, 10, 4), np.float32)
    given = {"codes": codes, "scales": scales, "sum": x if keep else None}
    host.launch(catalogue.rms_norm(), x=x, add=add, weight=weight, y=y, **given, eps=1e-5, rows=4, width=320)
    assert np.array_equal(x, both) is keep
    assert normalized_error(y, norm(both, weight)) < 1e-12
    assert normalized_error(unpacked(codes, scales), y) < 5e-4
    assert np.allclose(scales[..., 1] + scales[..., 2], unpacked(codes, scales).reshape(4, 10, 32).sum(-1), atol=1e-4)


@pytest.mark.parametrize(("groups", "width"), [(1, 8), (4, 16), (5, 128), (3, 45)])
def test_rms_norm_of_groups_in_place(host: HostKernels, groups: int, width: int) -> None:
    x, weight = random(3, groups * width), random(width)
    expected = norm(x, weight, groups)
    host.launch(
        catalogue.rms_norm_groups(), x=x, weight=weight, y=x, eps=1e-5, groups=3 * groups, width=width, rest=0, own=1
    )
    assert normalized_error(x, expected) < 1e-12


@pytest.mark.parametrize("layout", RopeLayout)
@pytest.mark.parametrize("factors", [True, False])
@pytest.mark.parametrize(("heads", "head_size", "pairs"), [(1, 8, 4), (3, 16, 4), (4, 128, 64), (2, 80, 20)])
def test_rope(host: HostKernels, layout: RopeLayout, factors: bool, heads: int, head_size: int, pairs: int) -> None:
    positions = np.array([0, 1, 77, 131071], np.int32)
    frequencies = 10000.0 ** (-np.arange(pairs) / pairs)
    divisors = RNG.uniform(1, 8, pairs).astype(np.float32) if factors else None
    x, table = random(4, heads * head_size), np.empty((4, pairs, 2), np.float32)
    op = ops.Rope(
        out=value(x, 1),
        x=value(x),
        heads=heads,
        head_size=head_size,
        frequencies=tuple(frequencies),
        magnitude=1.25,
        layout=layout,
        factors="f" if factors else None,
    )
    provider = MemoryWeights(
        {"f": (BlockType.F32, (pairs,), divisors.reshape(1, -1).view(np.uint8))} if divisors is not None else {}
    )
    rows = batch([([0], int(position), range(8193)) for position in positions])
    expected = reference.rope(op, rows, reference.Weights(provider), x.astype(np.float64))
    sizes = {"rows": 4, "pairs": pairs}
    given = {"positions": positions, "frequencies": frequencies, "factors": divisors, "magnitude": 1.25}
    host.launch(catalogue.angles(), **given, table=table, **sizes)
    host.launch(catalogue.rope(layout), x=x, table=table, y=x, heads=heads, head_size=head_size, begin=0, **sizes)
    assert normalized_error(x, expected) < 1e-12


@pytest.mark.parametrize("kind", catalogue.ACTIVATIONS)
def test_gate(host: HostKernels, kind: str) -> None:
    z, x = 10 * random(3, 96), 10 * random(3, 96)
    y, codes, scales = np.empty_like(z), np.empty(z.shape, np.int8), np.empty((3, 3, 4), np.float32)
    host.launch(catalogue.gate(kind), gate=z, up=x, y=y, codes=codes, scales=scales, n=z.size)
    assert normalized_error(y, reference.activate(z.astype(np.float64), x.astype(np.float64), kind)) < 1e-12
    assert normalized_error(unpacked(codes, scales), y) < 5e-4


def test_gate_without_blocks(host: HostKernels) -> None:
    z, x = np.array([[-200, 200, np.nan, 0, 1]], np.float32), np.ones((1, 5), np.float32)
    y = np.empty_like(z)
    host.launch(catalogue.gate("silu"), gate=z, up=x, y=y, codes=None, scales=None, n=5)
    assert np.allclose(y, [[0, 200, np.nan, 0, 1 / (1 + np.exp(-1))]], equal_nan=True)


@pytest.mark.parametrize("kind", catalogue.ROW_GATES)
def test_gate_of_whole_rows(host: HostKernels, kind: str) -> None:
    z, x = random(5, 1), random(5, 33)
    y = np.empty_like(x)
    host.launch(catalogue.gate_rows(kind), gate=z, up=x, y=y, rows=5, width=33)
    assert normalized_error(y, reference.activate(z.astype(np.float64), x.astype(np.float64), kind)) < 1e-12


def test_add_and_pick(host: HostKernels) -> None:
    a, b = random(7, 45), random(7, 45)
    y, pick = np.empty_like(a), np.array([6, 0, 6], np.int32)
    host.launch(catalogue.add(), a=a, b=b, y=y, n=a.size)
    assert np.array_equal(y, a + b)
    picked = np.empty((3, 45), np.float32)
    host.launch(catalogue.pick_rows(), x=y, pick=pick, y=picked, picked=3, width=45)
    assert np.array_equal(picked, (a + b)[pick])


@pytest.mark.parametrize("added", [True, False])
def test_combine(host: HostKernels, added: bool) -> None:
    x, shares, y = random(12, 40), random(4, 3), np.empty((4, 40), np.float32)
    add = random(4, 40) if added else None
    for weighed in (0, 1):
        given = {"x": x, "shares": shares, "add": add, "y": y, "weighed": weighed}
        host.launch(catalogue.combine(), **given, rows=4, used=3, width=40)
        each = np.ones_like(shares) if weighed else shares
        expected = np.einsum("rs,rsw->rw", each.astype(np.float64), x.reshape(4, 3, 40)) + (0 if add is None else add)
        assert normalized_error(y, expected) < 1e-12
