"""What kernels compute, and what is refused when they are compiled."""

import numpy as np
import pytest
from edgert_quant.jit import host, kernel, prepare
from edgert_quant.jit.primitives import load_f32

from tests.quant.jit import sample_kernels as samples


def test_rows_by_address() -> None:
    x = np.arange(70, dtype=np.float32)
    y = np.zeros_like(x)
    assert samples.scale_squares(x.ctypes.data, y.ctypes.data, len(x), 0.5) == 0
    np.testing.assert_array_equal(y, np.float32(0.5) * x * x)


def test_constant_tables_and_calls_by_address() -> None:
    assert samples.look_up(1, 2, 3, 4) == 10 + 100 * 3 + 4
    assert samples.indirect(samples.look_up.address, 1, 2, 3, 4) == 314


def test_emitted_kernels() -> None:
    x = np.arange(100)
    assert samples.add_up(x.ctypes.data, len(x)) == 4950
    assert samples.add_up(x.ctypes.data, 0) == 0
    assert samples.truncate(7, 1.5) == 10


def test_halves_round_as_numpy_does() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 4096, dtype=np.uint32)
    edges = np.array([0, -0.0, 65504, 65519.996, 65520, 6e-8, 2**-24, 2**-25, 2**-14, np.inf, -np.inf], np.float32)
    with np.errstate(over="ignore"):
        x = np.concatenate([bits.view(np.float32), edges, rng.standard_normal(512).astype(np.float32)])
        x = x[~np.isnan(x)]
        expected = x.astype(np.float16)
    halves = np.zeros(len(x), np.float16)
    samples.to_half(x.ctypes.data, halves.ctypes.data, len(x))
    np.testing.assert_array_equal(halves.view(np.uint16), expected.view(np.uint16))
    back = np.zeros_like(x)
    samples.from_half(halves.ctypes.data, back.ctypes.data, len(x))
    np.testing.assert_array_equal(back, expected.astype(np.float32))


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 64, 127])
def test_dot_products(n: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((2, n), dtype=np.float32)
    half = y.astype(np.float16)
    out = np.zeros(2, np.float32)
    samples.dots(x.ctypes.data, y.ctypes.data, half.ctypes.data, n, out.ctypes.data)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(out, [wide @ y.astype(np.float64), wide @ half.astype(np.float64)], atol=1e-5)


def test_atomics() -> None:
    counter = np.zeros(1, np.int64)
    assert samples.count_up(counter.ctypes.data, 1000) == 999
    assert counter[0] == 1000


def test_prepare_tells_only_of_what_it_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("EDGERT_CACHE_DIR", str(tmp_path))

    @kernel
    def fresh(x: int) -> int:
        return x + 1

    told: list[tuple[int, int, str]] = []
    assert prepare([fresh, samples.look_up, fresh], lambda *event: told.append(event)) >= 1
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
    assert fresh(41) == 42
    told.clear()
    assert prepare([fresh, samples.look_up], lambda *event: told.append(event)) == 0
    assert told == []


def test_what_allocates_or_raises_is_refused() -> None:
    @kernel
    def raises(x: int) -> int:
        if x < 0:
            raise ValueError("negative")
        return x

    with pytest.raises(TypeError, match=r"kernel .*raises needs .*: kernels must neither allocate nor raise"):
        raises.load()


def test_signatures_are_checked() -> None:
    with pytest.raises(TypeError, match="x must be annotated int or float"):

        @kernel
        def untyped(x) -> None: ...

    with pytest.raises(TypeError, match="must return int or None"):

        @kernel
        def unreturnable(x: int) -> float:
            return 1.0

    @kernel
    def real(x: int) -> int:
        return load_f32(x, 0)

    with pytest.raises(TypeError, match="returns float32, not an integer or None"):
        real.load()


def test_primitives_and_device_functions_are_no_python_functions() -> None:
    with pytest.raises(TypeError, match="load_f32 works only inside a kernel"):
        load_f32(0, 0)
    with pytest.raises(TypeError, match="square works only inside a kernel"):
        samples.square(2.0)


def test_host() -> None:
    assert host().cpu
    assert host().vector_bits in (128, 256, 512)
    assert not host().has("no such feature")
