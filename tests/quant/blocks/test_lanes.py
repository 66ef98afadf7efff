"""The arithmetic of the vector programs, against NumPy's."""

from collections.abc import Callable

import numpy as np
import pytest
from edgert_quant.blocks.lanes import COUNT, F32, I64, Lanes, address, count, load, store, vector
from edgert_quant.jit import Kernel, ir_kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir
from numpy.typing import NDArray

Operation = Callable[[Lanes], Lanes]


def program(operation: Operation, name: str) -> Kernel:
    """A kernel (source, target, vectors) that applies an operation to float32 numbers; int32 results as they are."""

    @ir_kernel(name=f"test.lanes.{name}")
    def apply(b, source, target, vectors):  # type: ignore[no-untyped-def]
        with count(b, vectors) as i:
            place = b.mul(i, ir.Constant(I64, 4 * COUNT))
            result = operation(Lanes(b, load(b, vector(F32), address(b, source, place))))
            store(b, result.value, address(b, target, place))

    return apply


def run(kernel: Kernel, x: NDArray[np.float32], result: type[np.generic] = np.float32) -> NDArray[np.generic]:
    padded = np.zeros(-(-x.size // COUNT) * COUNT, np.float32)
    padded[: x.size] = x.reshape(-1)
    out = np.empty(padded.size, result)
    kernel(padded.ctypes.data, out.ctypes.data, padded.size // COUNT)
    return out[: x.size]


HALF = program(lambda x: x.half(), "half")
HALF_BITS = program(lambda x: x.half().half_bits(), "half_bits")
INTEGER = program(lambda x: x.integer(), "integer")
INVERSE = program(lambda x: x.inverse(), "inverse")
SUMS = program(lambda x: x.across(8, "+"), "sums")
PEAKS = program(lambda x: x.across(16, "max"), "peaks")


def test_every_half_precision_number_survives() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    halfs = bits[np.isfinite(bits.view(np.float16))]
    x = halfs.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(run(HALF, x), x)
    np.testing.assert_array_equal(run(HALF_BITS, x, np.int32), halfs)


@given(st.lists(st.floats(-65519, 65519, width=32), min_size=1, max_size=64))
@settings(deadline=None)
def test_half_precision_rounds_as_numpy_does(values: list[float]) -> None:
    x = np.array(values, np.float32)
    expected = x.astype(np.float16)
    np.testing.assert_array_equal(run(HALF, x), expected.astype(np.float32))
    np.testing.assert_array_equal(run(HALF_BITS, x, np.int32), expected.view(np.uint16))


def test_ties_between_half_precision_numbers() -> None:
    bits = np.arange(0x7BFF, dtype=np.uint16)
    below, above = (
        bits.view(np.float16).astype(np.float32),
        (bits + 1).astype(np.uint16).view(np.float16).astype(np.float32),
    )
    middle = (below + above) / 2
    np.testing.assert_array_equal(run(HALF_BITS, middle, np.int32), np.where(bits % 2, bits + 1, bits))


def test_integers_round_to_even() -> None:
    x = np.array([0.5, 1.5, -2.5, 2.4999, -127.5, 4000000.0], np.float32)
    assert run(INTEGER, x, np.int32).tolist() == [0, 2, -2, 2, -128, 4000000]


def test_the_inverse_of_zero_is_zero() -> None:
    assert run(INVERSE, np.array([0, -0.0, 4, -0.5], np.float32)).tolist() == [0, 0, 0.25, -2]


def test_runs_of_neighbouring_lanes() -> None:
    x = np.arange(32, dtype=np.float32)
    assert run(SUMS, x).tolist() == np.repeat(x.reshape(4, 8).sum(1), 8).tolist()
    assert run(PEAKS, x).tolist() == [15.0] * 16 + [31.0] * 16


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_numbers_stay_within_limits(value: float) -> None:
    clamped = run(program(lambda x: x.clamp(-8, 7), "clamp"), np.array([value], np.float32))
    assert -8 <= float(clamped[0]) <= 7
