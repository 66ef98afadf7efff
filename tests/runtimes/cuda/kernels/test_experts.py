"""Routing, experts for few rows, and the sorted products for many, against the reference's moe."""

from dataclasses import dataclass

import numpy as np
import pytest
from edgert_models import ops
from edgert_models.router import SOFTMAX, Router
from edgert_quant.blocks import BlockType
from edgert_runtimes.conformance.tiny import normalized_error
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.reference.ops import Weights, moe
from edgert_runtimes.reference.ops import route as reference_route
from edgert_runtimes.weights import MemoryWeights

from tests.support.cuda_blocks import Activations, q8, random_rows, unpacked, weights
from tests.support.cuda_host import HostKernels

PAIRS = [
    (BlockType.Q4_K, BlockType.Q6_K),
    (BlockType.Q8_0, BlockType.Q8_0),
    (BlockType.MXFP4, BlockType.MXFP4),
    (BlockType.IQ3_S, BlockType.IQ4_NL),
    (BlockType.F32, BlockType.F32),
    (BlockType.BF16, BlockType.Q4_0),
]


@pytest.fixture(scope="module")
def host() -> HostKernels:
    kernels = [catalogue.route(), catalogue.expert_counts(), catalogue.expert_order(), catalogue.combine()]
    kernels += [catalogue.quantize(), *[catalogue.gate(kind) for kind in catalogue.ACTIVATIONS]]
    for up, down in PAIRS:
        kernels += [catalogue.experts_up(up, up, kind) for kind in catalogue.ACTIVATIONS]
        kernels += [catalogue.experts_down(down), catalogue.experts_gemm(up), catalogue.experts_gemm(down)]
    kernels.append(catalogue.experts_up(BlockType.Q4_K, BlockType.F32, "silu"))
    return HostKernels({kernel.name: kernel for kernel in kernels}.values())


def route(
    host: HostKernels, logits: np.ndarray, used: int, router: Router = SOFTMAX
) -> tuple[np.ndarray, np.ndarray, bool]:
    rows, experts = logits.shape
    ids, shares = np.zeros((rows, used), np.int32), np.zeros((rows, used), np.float32)
    failed, load = np.zeros(1, np.int32), np.zeros(experts, np.uint64)
    host.launch(
        catalogue.route(),
        logits=np.ascontiguousarray(logits, np.float32),
        ids=ids,
        shares=shares,
        failed=failed,
        rows=rows,
        experts=experts,
        used=used,
        bias=0,
        expert_scale=0,
        real=np.array([rows - 1], np.int32),
        load=load,
        bias_logits=0,
        sigmoid=int(router.scoring == "sigmoid"),
        normalize=int(router.normalize),
        groups=router.groups,
        groups_used=router.groups_used,
        group_best=router.group_best,
        band=router.band,
        epsilon=router.epsilon,
        scale=router.scale,
    )
    assert np.array_equal(load, np.bincount(ids[:-1].ravel(), minlength=experts))  # the last row only pads
    return ids, shares, bool(failed[0])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("experts", "used"), [(8, 2), (8, 8), (31, 4), (60, 33), (128, 8), (300, 1)])
def test_route(host: HostKernels, experts: int, used: int, normalize: bool) -> None:
    logits = np.random.default_rng(experts).standard_normal((9, experts), dtype=np.float32)
    logits[1:4] = np.round(logits[1:4])  # many ties
    logits[4] = 0
    ids, shares, failed = route(host, logits, used, Router(normalize=normalize))
    assert not failed
    chosen = np.argsort(-logits, axis=1, kind="stable")[:, :used]
    assert np.array_equal(ids, chosen)
    p = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    expected = np.take_along_axis(p, chosen, axis=1)
    if normalize:
        expected /= expected.sum(axis=1, keepdims=True)
    assert normalized_error(shares, expected) < 1e-12


def test_route_at_the_limits(host: HostKernels) -> None:
    logits = np.full((2, 40), -np.inf, np.float32)
    logits[0, 35] = 3
    ids, shares, failed = route(host, logits, 3)
    assert (ids[0].tolist(), shares[0].tolist(), failed) == ([35, 0, 1], [1, 0, 0], False)
    assert sorted(set(ids[1].tolist())) == [0, 1, 2]


def test_route_tells_of_nan(host: HostKernels) -> None:
    logits = np.ones((3, 40), np.float32)
    logits[2, 7] = np.nan
    ids, _, failed = route(host, logits, 2)
    assert failed
    assert ids.min() >= 0
    assert ids.max() < 40


def test_route_among_groups(host: HostKernels) -> None:
    """32 groups of two, as many as a warp ranks; most rows have ties between groups and in them."""
    logits = np.round(np.random.default_rng(1).standard_normal((9, 64))).astype(np.float32)
    logits[8] = 0
    router = Router(scoring="sigmoid", normalize=False, scale=2.0, groups=32, groups_used=5)
    ids, shares, failed = route(host, logits, 7, router)
    values = {"out": ops.Value(2, 8), "x": ops.Value(0, 8), "logits": ops.Value(1, 64)}
    op = ops.Moe(**values, gate="gate", up="up", down="down", experts=64, used=7, hidden=8, router=router)
    chosen, expected = reference_route(op, Weights(MemoryWeights({})), logits.astype(np.float64))
    assert not failed
    assert np.array_equal(ids, chosen)
    assert normalized_error(shares, expected) < 1e-12


@dataclass
class Layer:
    """Experts with biases, a batch, and what the reference makes of it (with activations as kernels see them)."""

    up_kind: BlockType
    down_kind: BlockType
    activation: str
    biases: bool
    rows: int
    experts: int = 6
    used: int = 3
    hidden: int = 256
    width: int = 256
    out: int = 70

    def __post_init__(self) -> None:
        rng = np.random.default_rng(7)
        self.gate = random_rows(self.up_kind, self.experts * self.hidden, self.width, 1)
        self.up = random_rows(self.up_kind, self.experts * self.hidden, self.width, 2)
        self.down = random_rows(self.down_kind, self.experts * self.out, self.hidden, 3)
        widths = (self.hidden, self.hidden, self.out)
        self.bias = [rng.standard_normal((self.experts, n), dtype=np.float32) if self.biases else None for n in widths]
        self.x = Activations(self.rows, self.width, self.up_kind)
        self.logits = rng.standard_normal((self.rows, self.experts), dtype=np.float32)
        if self.rows > 3:
            self.logits[:, 1] = -9  # nobody's expert

    def reference(self) -> np.ndarray:
        shapes = {"gate": (self.hidden, self.width), "up": (self.hidden, self.width), "down": (self.out, self.hidden)}
        tensors = {}
        for name, bias in zip(shapes, self.bias, strict=True):
            kind = self.down_kind if name == "down" else self.up_kind
            tensors[name] = (kind, (self.experts, *shapes[name]), getattr(self, name))
            if bias is not None:
                tensors[f"{name}_bias"] = (BlockType.F32, bias.shape, bias.view(np.uint8))
        op = ops.Moe(
            out=ops.Value(2, self.out),
            x=ops.Value(0, self.width),
            logits=ops.Value(1, self.experts),
            gate="gate",
            up="up",
            down="down",
            experts=self.experts,
            used=self.used,
            hidden=self.hidden,
            kind=self.activation,
            **{f"{name}_bias": f"{name}_bias" for name in shapes if self.biases},
        )
        return moe(op, Weights(MemoryWeights(tensors)), self.x.seen, self.logits.astype(np.float64))

    def bound(self) -> float:
        """The hidden values are quantized for a down projection of a block type."""
        return 5e-4 if catalogue.reads_codes(self.down_kind) else 1e-11


def few(host: HostKernels, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """The layer by the kernels for few rows: (y, hidden)."""
    ids, shares, _ = route(host, layer.logits, layer.used)
    slots, codes = layer.rows * layer.used, catalogue.reads_codes(layer.down_kind)
    h = np.empty((slots, layer.hidden), np.float32)
    h_codes = np.empty(h.shape, np.int8) if codes else None
    h_scales = np.empty((slots, layer.hidden // 32, 4), np.float32) if codes else None
    sizes = {"rows": layer.rows, "used": layer.used}
    host.launch(
        catalogue.experts_up(layer.up_kind, layer.up_kind, layer.activation),
        gate=layer.gate,
        up=layer.up,
        **layer.x.arguments,
        ids=ids,
        weights=None,
        gate_bias=layer.bias[0],
        up_bias=layer.bias[1],
        h=h,
        h_codes=h_codes,
        h_scales=h_scales,
        **sizes,
        hidden=layer.hidden,
        k=layer.width,
    )
    y, add = np.empty((layer.rows, layer.out), np.float32), np.ones((layer.rows, layer.out), np.float32)
    host.launch(
        catalogue.experts_down(layer.down_kind),
        w=layer.down,
        x=h,
        codes=h_codes,
        scales=h_scales,
        ids=ids,
        shares=shares,
        bias=layer.bias[2],
        add=add,
        y=y,
        **sizes,
        out=layer.out,
        k=layer.hidden,
    )
    if h_codes is not None:
        assert normalized_error(unpacked(h_codes, h_scales), h) < 5e-4
    return y - 1, h


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("activation", catalogue.ACTIVATIONS)
@pytest.mark.parametrize(("up", "down"), PAIRS, ids=lambda kind: kind.name)
def test_few_rows(host: HostKernels, up: BlockType, down: BlockType, activation: str, biases: bool) -> None:
    layer = Layer(up, down, activation, biases, rows=2)
    y, _ = few(host, layer)
    assert normalized_error(y, layer.reference()) < layer.bound()


def test_hidden_that_is_no_multiple_of_32(host: HostKernels) -> None:
    layer = Layer(BlockType.F32, BlockType.F32, "silu", True, rows=1, hidden=45, width=50, out=9)
    y, _ = few(host, layer)
    assert normalized_error(y, layer.reference()) < 1e-11


def test_gate_and_up_of_different_types(host: HostKernels) -> None:
    x, k = Activations(1, 256, BlockType.Q4_K), 256
    gate, up = random_rows(BlockType.Q4_K, 64, k, 1), random_rows(BlockType.F32, 64, k, 2)
    h = np.empty((1, 32), np.float32)
    given = {**x.arguments, "x": x.seen.astype(np.float32), "gate_bias": None, "up_bias": None}
    given |= {"h_codes": None, "h_scales": None, "weights": None}
    kernel = catalogue.experts_up(BlockType.Q4_K, BlockType.F32, "silu")
    ids = np.array([[1]], np.int32)
    host.launch(kernel, gate=gate, up=up, ids=ids, h=h, rows=1, used=1, hidden=32, k=k, **given)
    z, y = x.seen @ weights(gate, BlockType.Q4_K)[32:].T, x.seen @ weights(up, BlockType.F32)[32:].T
    assert normalized_error(h, z / (1 + np.exp(-z)) * y) < 1e-11


def many(host: HostKernels, layer: Layer) -> np.ndarray:
    """The layer by the kernels for many rows."""
    ids, shares, _ = route(host, layer.logits, layer.used)
    pairs = ids.size
    counts, order = np.empty(layer.experts, np.int32), np.empty(pairs, np.int32)
    most = catalogue.most_tiles(pairs, layer.experts)
    tiles = np.full((most, 4), -1, np.int32)
    sizes = {"pairs": pairs, "experts": layer.experts}
    host.launch(catalogue.expert_counts(), ids=ids, counts=counts, **sizes)
    host.launch(catalogue.expert_order(), ids=ids, counts=counts, order=order, tiles=tiles, most_tiles=most, **sizes)
    assert np.array_equal(counts, np.bincount(ids.ravel(), minlength=layer.experts))
    assert np.array_equal(order, np.argsort(ids.ravel(), kind="stable"))

    def product(kind: BlockType, w: np.ndarray, x: dict[str, np.ndarray | None], i: int, n: int, k: int) -> np.ndarray:
        y = np.full((pairs, n), np.nan, np.float32)
        divisor = 1 if i == 2 else layer.used
        given = {"order": order, "tiles": tiles, "bias": layer.bias[i], "most_tiles": most, "divisor": divisor}
        host.launch(catalogue.experts_gemm(kind), w=w, **x, y=y, out=n, k=k, **given)
        return y

    x = layer.x.arguments
    z = product(layer.up_kind, layer.gate, x, 0, layer.hidden, layer.width)
    y = product(layer.up_kind, layer.up, x, 1, layer.hidden, layer.width)
    h, codes = np.empty_like(z), catalogue.reads_codes(layer.down_kind)
    h_codes = np.empty(h.shape, np.int8) if codes else None
    h_scales = np.empty((pairs, layer.hidden // 32, 4), np.float32) if codes else None
    given = {"codes": h_codes, "scales": h_scales}
    host.launch(catalogue.gate(layer.activation), gate=z, up=y, y=h, **given, n=h.size)
    down = product(layer.down_kind, layer.down, {"x": h, **given}, 2, layer.out, layer.hidden)
    out = np.empty((layer.rows, layer.out), np.float32)
    host.launch(
        catalogue.combine(),
        x=down,
        shares=shares,
        add=None,
        y=out,
        rows=layer.rows,
        used=layer.used,
        width=layer.out,
        weighed=0,
    )
    return out


@pytest.mark.parametrize(("up", "down"), PAIRS, ids=lambda kind: kind.name)
def test_many_rows(host: HostKernels, up: BlockType, down: BlockType) -> None:
    layer = Layer(up, down, "swiglu_oai", True, rows=40)
    assert normalized_error(many(host, layer), layer.reference()) < layer.bound()


@pytest.mark.parametrize(("rows", "experts", "used"), [(1, 6, 3), (150, 2, 1), (70, 6, 6), (300, 33, 2)])
def test_shapes_of_many_rows(host: HostKernels, rows: int, experts: int, used: int) -> None:
    layer = Layer(BlockType.F32, BlockType.F32, "silu", False, rows, experts, used, hidden=20, width=12, out=9)
    assert normalized_error(many(host, layer), layer.reference()) < 1e-11


def test_quantize(host: HostKernels) -> None:
    x = np.random.default_rng(0).standard_normal((5, 96), dtype=np.float32)
    x[1, 32:64] = 0
    x[2] *= 1e-30
    x[3] *= 1e30
    codes, scales = np.empty(x.shape, np.int8), np.empty((5, 3, 4), np.float32)
    host.launch(catalogue.quantize(), x=x, codes=codes, scales=scales, blocks=15)
    expected_codes, expected_scales = q8(x)
    assert np.array_equal(codes, expected_codes)
    assert np.allclose(scales, expected_scales, rtol=1e-6)
    assert normalized_error(unpacked(codes, scales)[:3], x[:3]) < 5e-4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_quantize_keeps_what_is_not_finite(host: HostKernels, bad: float) -> None:
    x = np.ones((1, 96), np.float32)
    x[0, 40] = bad
    codes, scales = np.empty(x.shape, np.int8), np.empty((1, 3, 4), np.float32)
    host.launch(catalogue.quantize(), x=x, codes=codes, scales=scales, blocks=3)
    assert np.isnan(scales[0, :, :3]).all(axis=1).tolist() == [False, True, False]
