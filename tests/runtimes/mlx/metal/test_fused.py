"""The kernels between products: on a GPU where there is Metal, else on the host shim in its place."""

# ruff: noqa: E402

import re

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="the mlx package is not installed")

from edgert_runtimes.batches import first_seen
from edgert_runtimes.conformance.tiny import normalized_error
from edgert_runtimes.mlx.metal import fused
from edgert_runtimes.mlx.ops.attention import capped_attention

from tests.support.metal import COMPILER, MISSING, ORDERS, FusedProgram

pytestmark = pytest.mark.mlx
BOUNDS = {mx.float32: 1e-11, mx.float16: 1e-6}
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"


def random(*shape: int, seed: int = 0, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.array(np.random.default_rng((*shape, seed)).standard_normal(shape, dtype=np.float32)).astype(dtype)


def error(found: mx.array, wanted: mx.array) -> float:
    found, wanted = (np.asarray(each.astype(mx.float32)).astype(np.float64) for each in (found, wanted))
    return normalized_error(found, wanted)


@pytest.mark.usefixtures("metal")
@pytest.mark.parametrize(
    ("size", "pairs", "first", "interleaved", "norm"),
    [(64, 32, 0, False, True), (40, 8, 16, True, False), (36, 10, 4, False, True), (32, 0, 0, False, False)],
)
def test_heads(size: int, pairs: int, first: int, interleaved: bool, norm: bool) -> None:
    rows, count, kv_count, value_size = 3, 4, 2, 24
    q, k, v = (random(rows, n) for n in (count * size, kv_count * size, kv_count * value_size))
    weights = (random(size, seed=1), random(size, seed=2)) if norm else None
    frequencies = mx.array(np.geomspace(1, 1e-4, pairs).astype(np.float32)) if pairs else None
    positions, numbers = mx.array([0, 7, 40_000], mx.int32), mx.array([1e-5, 1e-6, 1.25])
    for dtype, kept in ((mx.float32, mx.float16),) if norm else ((mx.float16, mx.float32),):
        queries, keys, values = fused.heads(
            *(q, k, v, weights, frequencies, positions, numbers),
            sizes=(count, kv_count, size, value_size),
            first=first,
            interleaved=interleaved,
            dtypes=(dtype, kept),
        )

        def wanted(x: mx.array, number: int) -> mx.array:
            x = x.reshape(rows, -1, 1, size)
            if weights is not None:
                x = mx.fast.rms_norm(x, weights[number], numbers[number].item())
            if frequencies is None:
                return x[:, :, 0]
            turned = mx.fast.rope(
                x[..., first:],
                2 * pairs,
                traditional=interleaved,
                base=None,
                scale=1.0,
                offset=positions,
                freqs=1 / frequencies,
            )
            factor = mx.array([1.25] * (2 * pairs) + [1.0] * (size - first - 2 * pairs))
            return mx.concatenate([x[..., :first], turned * factor], axis=-1)[:, :, 0]

        assert (queries.dtype, keys.dtype, values.dtype) == (dtype, kept, kept)
        # At position 40,000 angles themselves are known to 2e-3 in float32.
        assert error(queries, wanted(q, 0).reshape(rows, -1)) < 1e-6
        assert error(queries[:2], wanted(q, 0).reshape(rows, -1)[:2]) < BOUNDS[dtype]
        assert error(keys[:, :, :2], wanted(k, 1).swapaxes(0, 1)[None, :, :2]) < BOUNDS[kept]
        assert error(values, v.reshape(rows, kv_count, -1).swapaxes(0, 1)[None]) < BOUNDS[kept]


def attention_case(size: int = 40, value_size: int = 24) -> tuple[list[mx.array], dict[str, int]]:
    """Three rows with 1, 30 and 64 positions, in blocks in no order."""
    heads, kv_heads, block_size, blocks = 4, 2, 16, 20
    keys, values = (random(1, kv_heads, blocks * block_size, n) for n in (size, value_size))
    tables = mx.array(np.random.default_rng(1).permutation(blocks)[:12].reshape(3, 4).astype(np.int32))
    positions = mx.array([0, 29, 63], mx.int32)
    return [random(3, heads * size), keys, values, tables, positions], {"heads": heads, "block_size": block_size}


def attended(given: list[mx.array], reach: int, cap: float | None, sinks: mx.array | None, scale: float) -> mx.array:
    queries, keys, values, tables, positions = given
    results = []
    for row, last in enumerate(positions.tolist()):
        seen = np.arange(int(first_seen(np.int32(last), reach)), last + 1)
        slots = mx.array(np.asarray(tables)[row, seen // 16] * 16 + seen % 16)
        k, v = keys[:, :, slots], values[:, :, slots]
        q = queries[row].reshape(1, 4, 1, -1)
        results.append(capped_attention(cap or 1e9, scale, q, k, v, None, sinks).reshape(1, -1))
    return mx.concatenate(results)


@pytest.mark.usefixtures("metal")
@pytest.mark.parametrize(
    ("reach", "cap", "sinks", "dtype", "kept"),
    [
        (0, None, False, mx.float32, mx.float32),
        (20, None, True, mx.float16, mx.float16),
        (-20, 3.0, False, mx.float32, mx.bfloat16),
    ],
    ids=str,
)
def test_attention(reach: int, cap: float | None, sinks: bool, dtype: mx.Dtype, kept: mx.Dtype) -> None:
    given, sizes = attention_case()
    extra, scale = random(4, seed=9) if sinks else None, 40**-0.5
    wanted = attended(given, reach, cap, extra, scale)
    numbers = mx.array([scale, cap or 0.0])
    cast = [given[0].astype(dtype), *(each.astype(kept) for each in given[1:3]), *given[3:]]
    y = fused.attention(*cast, extra, numbers, **sizes, reach=reach, capped=cap is not None)
    assert y.dtype == dtype
    assert error(y, wanted) < {mx.float32: 1e-11, mx.float16: 1e-5, mx.bfloat16: 1e-4}[kept]


@pytest.mark.usefixtures("metal")
@pytest.mark.parametrize(("experts", "used", "normalized"), [(4, 2, True), (300, 8, False)])
def test_route(experts: int, used: int, normalized: bool) -> None:
    logits = mx.round(4 * random(3, experts)) / 2  # many are equal
    chosen, shares, peaks = fused.route(logits, mx.array([2.5]), used=used, normalized=normalized)
    wanted = mx.argsort(-logits, axis=-1)[:, :used]
    assert (chosen == wanted).all()
    best = mx.take_along_axis(logits, wanted, axis=-1)
    softmax = mx.softmax(best, axis=-1) if normalized else mx.exp(best - mx.logsumexp(logits, axis=-1, keepdims=True))
    assert error(shares, 2.5 * softmax) < 1e-12
    assert (peaks == logits.max(axis=-1, keepdims=True)).all()


@pytest.mark.usefixtures("metal")
def test_damaged_logits_choose_experts_all_the_same() -> None:
    """None that does not exist, and the peak tells."""
    logits = mx.array([[np.nan, 1, np.nan, 2], [np.nan] * 4, [0, np.inf, 1, 0], [-np.inf] * 4])
    chosen, _, peaks = fused.route(logits, mx.array([1.0]), used=2, normalized=True)
    assert chosen.tolist() == [[3, 1], [0, 1], [1, 2], [0, 1]]
    assert not (peaks[:3] < np.inf).any()


@pytest.mark.usefixtures("metal")
@pytest.mark.parametrize(
    ("width", "used", "dtype"), [(48, 0, mx.float32), (700, 3, mx.float32), (48, 3, mx.float16)], ids=str
)
def test_sum_norm(width: int, used: int, dtype: mx.Dtype) -> None:
    a, weight = random(2, width), random(width, seed=1)
    b, shares = (random(2, used, width, seed=2), random(2, used, seed=3)) if used else (random(2, width, seed=2), None)
    total, normal, cast = fused.sum_norm(a, b.astype(dtype), shares, weight, mx.array([1e-5]), mx.float16)
    wanted = a + (b if shares is None else (b * shares[:, :, None]).sum(axis=1))
    assert error(total, wanted) < BOUNDS[dtype]
    assert error(normal, mx.fast.rms_norm(wanted, weight, 1e-5)) < BOUNDS[dtype]
    assert (cast == normal.astype(mx.float16)).all()


@pytest.mark.skipif(COMPILER is None, reason=MISSING)
@pytest.mark.parametrize("body", ["attention", "route", "sum_norm"])
def test_removed_barriers_are_caught(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any one missing, some order of threads gives a wrong result."""
    calls: list[dict[str, object]] = []

    def record(**given: object) -> list[mx.array]:
        calls.append(given)
        return [mx.zeros(shape) for shape in given["output_shapes"]]  # type: ignore[attr-defined]

    monkeypatch.setattr(fused, "kernel", lambda name: record)
    if body == "attention":
        given, sizes = attention_case()
        fused.attention(*given, None, mx.array([1.0, 0.0]), **sizes, reach=0, capped=False)
    elif body == "route":
        for damaged in (400, 200):  # NaN where the last threads see it
            logits = np.where(np.arange(300) == damaged, np.nan, np.asarray(random(300))).astype(np.float32)
            fused.route(mx.array(logits)[None], mx.array([1.0]), used=3, normalized=True)
    else:
        fused.sum_norm(random(1, 600), random(1, 600, seed=1), None, random(600), mx.array([0.0]), mx.float32)
    text = fused.source(body)
    pieces = text.split(BARRIER)
    joined = [[*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]] for i in range(len(pieces) - 1)]
    mutants = [text, *(BARRIER.join(each) for each in joined)]
    assert len(mutants) > 1

    def results(source: str, call: dict, order: int) -> list[np.ndarray]:
        inputs, outputs = fused.BODIES[body]
        numbers = [str(x.dtype).removeprefix("mlx.core.") for x in call["inputs"]]
        kinds = [str(dtype).removeprefix("mlx.core.") for dtype in call["output_dtypes"]]
        template = {key: value if isinstance(value, int) else "float32" for key, value in call["template"]}
        taken, given = (dict(zip(*each, strict=True)) for each in ((inputs, numbers), (outputs, kinds)))
        program = FusedProgram(source, taken, given, template)
        arrays = [np.asarray(x) for x in call["inputs"]]
        return program.run(arrays, call["output_shapes"], call["grid"], call["threadgroup"], order)

    def alike(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
        return all(np.allclose(x, y, rtol=1e-4, atol=1e-5, equal_nan=True) for x, y in zip(a, b, strict=True))

    wanted = [results(text, call, 0) for call in calls]
    found = [
        all(alike(results(mutant, call, order), y) for call, y in zip(calls, wanted, strict=True) for order in ORDERS)
        for mutant in mutants
    ]
    assert found == [True] + [False] * (len(mutants) - 1)


def test_texts_are_ascii_and_take_no_pointers() -> None:
    """MLX gives arrays of less than eight numbers as constants, so that no pointer to one can be said in advance."""
    for body, (inputs, outputs) in fused.BODIES.items():
        text = fused.source(body)
        assert text.isascii()
        code = re.sub(r"//.*", "", text)
        for array in (*inputs, *outputs):
            assert re.search(rf"\b{array}\[", code), array
            code = re.sub(r"_position_in_grid\.y|\bfloat y\b|\?\s*y : -y", "", code)
            assert not re.search(rf"\b{array}\b(?!\[|_shape)", code), array
