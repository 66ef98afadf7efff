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


KEYS = (64, 128, 256)
"""Elements of the keys of a head that the delta rule has kernels for, or fewer."""


def delta_rule(key_size: int, by_channel: bool = False) -> Kernel:
    """y [rows, heads · size] by the gated delta rule, whose state [slots, heads, key_size, size] decays by channel or
    by head.
    """
    most = next(each for each in KEYS if key_size <= each)
    return Kernel(
        name=f"delta_rule_{most}{'_channels' * by_channel}",
        header="recurrent.cuh",
        call=f"delta_rule<{most}, {str(by_channel).lower()}>",
        signature="const float *qs, const float *ks, const float *vs, const float *a, const float *b, "
        "const int4 *runs, const float *decay, const float *bias, float *state, float *y, int count, int heads, "
        "int key_heads, int key_size, int size, int tiled, int keys_stride, int stride, float floor",
        threads=128,
        blocks=lambda a: a["count"] * a["heads"] * ceil_div(a["size"], 32),
    )


SCANNED = (32, 128, 256)
"""Numbers for each element of a state that scans have kernels for, or fewer."""


def scan(numbers: int) -> Kernel:
    """y [rows, heads · size] by a selective scan; state [slots, heads, size, numbers]."""
    most = next(each for each in SCANNED if numbers <= each)
    return Kernel(
        name=f"scan_{most}",
        header="recurrent.cuh",
        call=f"scan<{most // 32}>",
        signature="const float *x, const float *t, const float *b, const float *c, const int4 *runs, "
        "const float *decay, const float *bias, const float *skip, float *state, float *y, int count, int heads, "
        "int size, int groups, int numbers, int decays, float least",
        threads=128,
        blocks=lambda a: ceil_div(a["count"] * a["heads"] * a["size"], 4),
    )
