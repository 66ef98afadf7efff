"""Mixtures of experts: routing, experts for few rows, and for many that are sorted by expert."""

from __future__ import annotations

from edgert_quant.blocks import BlockType

from edgert_runtimes.cuda.kernels.catalogue.types import ACTIVATIONS, INPUTS, OUTPUTS, TILE_OUT, TILE_ROWS
from edgert_runtimes.cuda.kernels.kernel import Kernel, ceil_div

MOST_GROUPS = 32
"""Groups of experts that `route` can rank: one a lane."""
EXPERT_ROWS = 32  # of a block of `experts_up`: a block of quantized activations


def route() -> Kernel:
    """ids and shares [rows, used] of the experts that each row's logits choose; sets *failed to 1 if one is NaN, and
    adds the choices of the first *real rows to load [experts]. The rest is a Router, with `bias` [experts] or null.
    """
    return Kernel(
        name="route",
        header="route.cuh",
        call="route",
        signature="const float *logits, int *ids, float *shares, int *failed, int rows, int experts, int used, "
        "const float *bias, int bias_logits, const float *expert_scale, const int *real, u64 *load, int sigmoid, "
        "int normalize, int groups, int groups_used, int group_best, float epsilon, float scale, float band",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"], 8),
    )


def experts_up(gate: BlockType, up: BlockType, activation: str) -> Kernel:
    """h [rows · used, hidden] = f(gate x, up x) of the experts `ids`, also as blocks where hidden_codes is not null; x
    is multiplied with weights [rows · used] unless they are null.
    """
    return Kernel(
        name=f"experts_up_{gate.name}_{up.name}_{activation}",
        header="experts.cuh",
        call=f"experts_up<{gate.name}, {up.name}, {ACTIVATIONS[activation]}>",
        signature=f"const u8 *gate, const u8 *up, {INPUTS}, const int *ids, const float *weights, "
        "const float *gate_bias, const float *up_bias, float *h, s8 *h_codes, float4 *h_scales, int rows, int used, "
        "int hidden, int k",
        threads=256,
        blocks=lambda a: a["rows"] * a["used"] * ceil_div(a["hidden"], EXPERT_ROWS),
    )


def experts_down(kind: BlockType) -> Kernel:
    """y [rows, out] = Σ shares · (down x + bias) over the experts `ids` of each row, + add; x is [rows · used, k]. If
    shares are null, they are 1.
    """
    return Kernel(
        name=f"experts_down_{kind.name}",
        header="experts.cuh",
        call=f"experts_down<{kind.name}>",
        signature=f"const u8 *w, {INPUTS}, const int *ids, const float *shares, const float *bias, "
        "const float *add, float *y, int rows, int used, int out, int k",
        threads=128,
        blocks=lambda a: a["rows"] * ceil_div(a["out"], OUTPUTS),
    )


def expert_counts() -> Kernel:
    """counts [experts] of each id among `ids` [pairs]; a pair is row · used + rank."""
    return Kernel(
        name="expert_counts",
        header="route.cuh",
        call="expert_counts",
        signature="const int *ids, int *counts, int pairs, int experts",
        threads=256,
        blocks=lambda a: a["experts"],
    )


def expert_order() -> Kernel:
    """The pairs sorted by expert (`order` [pairs]), and tiles of TILE_ROWS of them: int4 (expert, first, end, 0).

    `tiles` has room for `most_tiles`; those left over have first = end.
    """
    return Kernel(
        name="expert_order",
        header="route.cuh",
        call="expert_order",
        signature="const int *ids, const int *counts, int *order, int4 *tiles, int pairs, int experts, int most_tiles",
        threads=256,
        blocks=lambda a: a["experts"],
    )


def most_tiles(pairs: int, experts: int) -> int:
    """How many tiles the pairs make at most."""
    return min(pairs, pairs // TILE_ROWS + experts)


def experts_gemm(kind: BlockType) -> Kernel:
    """y [pairs, out] = W[expert] x + bias, tile by tile; the row of x of a pair is pair / divisor."""
    return Kernel(
        name=f"experts_gemm_{kind.name}",
        header="gemm.cuh",
        call=f"experts_gemm<{kind.name}>",
        signature=f"const u8 *w, {INPUTS}, const int *order, const int4 *tiles, const float *bias, float *y, "
        "int most_tiles, int divisor, int out, int k",
        threads=256,
        blocks=lambda a: ceil_div(a["out"], TILE_OUT) * a["most_tiles"],
    )


def combine() -> Kernel:
    """y [rows, width] = Σ shares · x[pair] over the pairs of each row, + add if that is not null; what is `weighed` has
    been multiplied with its share.
    """
    return Kernel(
        name="combine",
        header="rows.cuh",
        call="combine",
        signature="const float *x, const float *shares, const float *add, float *y, int rows, int used, int width, "
        "int weighed",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"] * a["width"], 256),
    )
