"""Operations on values, element by element or row by row."""

from __future__ import annotations

from edgert_models.rope import RopeLayout

from edgert_runtimes.cuda.kernels.catalogue.types import GATES, ROW_GATES
from edgert_runtimes.cuda.kernels.kernel import Kernel, ceil_div


def quantize() -> Kernel:
    """x to blocks; `blocks` are those of 32 in all rows."""
    return Kernel(
        name="quantize",
        header="rows.cuh",
        call="quantize",
        signature="const float *x, s8 *codes, float4 *scales, i64 blocks",
        threads=256,
        blocks=lambda a: ceil_div(a["blocks"], 8),
    )


def rms_norm() -> Kernel:
    """y = norm(s) · weight with s = x + add, or x where add is null; s is kept where sum is not null."""
    return Kernel(
        name="rms_norm",
        header="rows.cuh",
        call="rms_norm",
        signature="const float *x, const float *add, float *sum, const float *weight, float *y, s8 *codes, "
        "float4 *scales, float eps, int rows, int width",
        threads=256,
        blocks=lambda a: a["rows"],
    )


def layer_norm() -> Kernel:
    """y = (x - mean) / sqrt(variance + eps) · weight + bias; bias may be null."""
    return Kernel(
        name="layer_norm",
        header="rows.cuh",
        call="layer_norm",
        signature="const float *x, const float *weight, const float *bias, float *y, s8 *codes, float4 *scales, "
        "float eps, int rows, int width",
        threads=256,
        blocks=lambda a: a["rows"],
    )


def rms_norm_groups() -> Kernel:
    """Each of `groups` (in all rows together) normalised by itself; weight [own, width] has one for each of `own`
    groups in turn, a rest stays.
    """
    return Kernel(
        name="rms_norm_groups",
        header="rows.cuh",
        call="rms_norm_groups",
        signature="const float *x, const float *weight, float *y, float eps, i64 groups, int width, int rest, int own",
        threads=256,
        blocks=lambda a: ceil_div(a["groups"], 8),
    )


def angles() -> Kernel:
    """table [rows, pairs] of (cos, sin) · magnitude for float64 frequencies [pairs], divided by factors if not null."""
    return Kernel(
        name="angles",
        header="rows.cuh",
        call="angles",
        signature="const int *positions, const double *frequencies, const float *factors, float2 *table, "
        "float magnitude, int rows, int pairs",
        threads=128,
        blocks=lambda a: ceil_div(a["rows"] * a["pairs"], 128),
    )


def rope(layout: RopeLayout) -> Kernel:
    """y [rows, heads · head_size] = x rotated by the table from a head's element `begin` on; y may be x."""
    return Kernel(
        name=f"rope_{layout.value}",
        header="rows.cuh",
        call=f"rope<{'true' if layout is RopeLayout.INTERLEAVED else 'false'}>",
        signature="const float *x, const float2 *table, float *y, int rows, int heads, int head_size, "
        "int begin, int pairs",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"] * a["heads"] * (a["head_size"] - a["pairs"]), 256),
    )


def copy_rest() -> Kernel:
    """The last `rest` elements of each of `heads` (in all rows together), behind `inward` in x and `outward` in y."""
    return Kernel(
        name="copy_rest",
        header="rows.cuh",
        call="copy_rest",
        signature="const float *x, float *y, i64 heads, int inward, int outward, int rest",
        threads=256,
        blocks=lambda a: ceil_div(a["heads"] * a["rest"], 256),
    )


def add() -> Kernel:
    """y = a + b, n elements."""
    return Kernel(
        name="add",
        header="rows.cuh",
        call="add",
        signature="const float *a, const float *b, float *y, i64 n",
        threads=256,
        blocks=lambda a: ceil_div(a["n"], 256),
    )


def scale() -> Kernel:
    """y = factor · x, n elements, times the number at weight if that is not null."""
    return Kernel(
        name="scale",
        header="rows.cuh",
        call="scale",
        signature="const float *x, const float *weight, float *y, float factor, i64 n",
        threads=256,
        blocks=lambda a: ceil_div(a["n"], 256),
    )


def position_scale() -> Kernel:
    """y [rows, width] = x times what the position of each row makes of it."""
    return Kernel(
        name="position_scale",
        header="rows.cuh",
        call="position_scale",
        signature="const float *x, const int *positions, float *y, float strength, int length, int ahead, "
        "int rows, int width",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"] * a["width"], 256),
    )


def soft_cap() -> Kernel:
    """y = cap · tanh(x / cap), n elements."""
    return Kernel(
        name="soft_cap",
        header="rows.cuh",
        call="soft_cap",
        signature="const float *x, float *y, float cap, i64 n",
        threads=256,
        blocks=lambda a: ceil_div(a["n"], 256),
    )


def clamp() -> Kernel:
    """y = x within ±limit, n elements."""
    return Kernel(
        name="clamp",
        header="rows.cuh",
        call="clamp",
        signature="const float *x, float *y, float limit, i64 n",
        threads=256,
        blocks=lambda a: ceil_div(a["n"], 256),
    )


def scale_rows() -> Kernel:
    """x [rows, width] times a factor for each row, in place."""
    return Kernel(
        name="scale_rows",
        header="rows.cuh",
        call="scale_rows",
        signature="float *x, const float *factors, int rows, int width",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"] * a["width"], 256),
    )


def gate(activation: str) -> Kernel:
    """y = f(gate, up), n elements; blocks too where codes is not null (rows are then multiples of 32)."""
    return Kernel(
        name=f"gate_{activation}",
        header="rows.cuh",
        call=f"gate<{GATES[activation]}>",
        signature="const float *gate, const float *up, float *y, s8 *codes, float4 *scales, i64 n",
        threads=256,
        blocks=lambda a: ceil_div(a["n"], 256),
    )


def gate_rows(activation: str) -> Kernel:
    """y [rows, width] = f(gate [rows], up)."""
    return Kernel(
        name=f"gate_rows_{activation}",
        header="rows.cuh",
        call=f"gate_rows<{ROW_GATES[activation]}>",
        signature="const float *gate, const float *up, float *y, int rows, int width",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"] * a["width"], 256),
    )


def slice_parts() -> Kernel:
    """y [parts, width] = elements from `start` on of x [parts, x_width]."""
    return Kernel(
        name="slice_parts",
        header="rows.cuh",
        call="slice_parts",
        signature="const float *x, float *y, i64 parts, int width, int x_width, int start",
        threads=256,
        blocks=lambda a: ceil_div(a["parts"] * a["width"], 256),
    )


def pick_rows() -> Kernel:
    """y [picked, width] = x[pick]."""
    return Kernel(
        name="pick_rows",
        header="rows.cuh",
        call="pick_rows",
        signature="const float *x, const int *pick, float *y, int picked, int width",
        threads=256,
        blocks=lambda a: ceil_div(a["picked"] * a["width"], 256),
    )
