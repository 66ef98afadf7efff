"""Operations with a state. `runs` int32 [count, 4] are those of a batch."""

from __future__ import annotations

from edgert_runtimes.cuda.kernels.kernel import Kernel, ceil_div


def short_conv() -> Kernel:
    """y [rows, width] = the convolution of x; state [slots, taps - 1, width]; `bias` may be null."""
    return Kernel(
        name="short_conv",
        header="recurrent.cuh",
        call="short_conv",
        signature="const float *x, const int4 *runs, const float *weight, const float *bias, float *state, float *y, "
        "int count, int width, int taps, int silu",
        threads=128,
        blocks=lambda a: ceil_div(a["count"] * a["width"], 128),
    )
