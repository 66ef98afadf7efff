"""Every kernel: a function that makes it, by what it is compiled for. The signatures' meaning is told in the headers.

Activations come in two forms. `x` is float32 [rows, k]. `codes` int8 [rows, k] and `scales` float4 [rows, k / 32] are the
same in blocks of 32 (q8, see `activations.cuh`): matrices of block types read these, matrices of floats read `x`, and a
kernel that is given both uses what its type needs (`reads_codes`). Kernels that make activations write the blocks too
where `codes` is not null.
"""

from __future__ import annotations

from edgert_models.rope import RopeLayout
from edgert_quant.blocks import BlockType

from edgert_runtimes.cuda.kernels.kernel import Kernel, ceil_div

FLOATS = (BlockType.F32, BlockType.F16, BlockType.BF16)
BLOCKS = tuple(
    BlockType[name]
    for name in (
        *("Q1_0", "Q2_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "NVFP4"),
        *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "TQ1_0", "TQ2_0"),
        *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
    )
)
WEIGHTS = FLOATS + BLOCKS
"""Types that matrices, experts and embeddings may have."""
ACTIVATIONS = {"silu": "Silu", "swiglu_oai": "SwigluOai"}
COLUMNS = range(1, 9)
"""Rows of activations that `linear` multiplies at once; from more on `gemm` is for."""

LINEAR_ROWS = 8  # outputs of a block of `linear` and `experts_down`: one a warp
EXPERT_ROWS = 32  # of `experts_up`: a block of quantized activations
TILE_OUT, TILE_ROWS = 128, 64  # of `gemm` and `experts_gemm`
QUERIES = 64  # queries (rows times heads of a group) that a block of `attend_tile` holds
_ACTIVATIONS = "const float *x, const s8 *codes, const float4 *scales"


def reads_codes(kind: BlockType) -> bool:
    """Whether matrices of this type are multiplied with quantized activations."""
    return kind not in FLOATS


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


def linear(kind: BlockType, columns: int) -> Kernel:
    """y [columns, out] = x Wᵀ + bias + add, where these are not null, for few rows of x."""
    return Kernel(
        name=f"linear_{kind.name}_{columns}",
        header="linear.cuh",
        call=f"linear<{kind.name}, {columns}>",
        signature=f"const u8 *w, {_ACTIVATIONS}, const float *bias, const float *add, float *y, int out, int k",
        threads=256,
        blocks=lambda a: ceil_div(a["out"], LINEAR_ROWS),
    )


def gemm(kind: BlockType) -> Kernel:
    """y [rows, out] = x Wᵀ + bias + add, where these are not null, for many rows of x."""
    return Kernel(
        name=f"gemm_{kind.name}",
        header="gemm.cuh",
        call=f"gemm<{kind.name}>",
        signature=f"const u8 *w, {_ACTIVATIONS}, const float *bias, const float *add, float *y, int rows, int out, int k",
        threads=256,
        blocks=lambda a: ceil_div(a["out"], TILE_OUT) * ceil_div(a["rows"], TILE_ROWS),
    )


def route() -> Kernel:
    """ids and shares [rows, used] of the experts that each row's logits choose; sets *failed to 1 if one is NaN."""
    return Kernel(
        name="route",
        header="route.cuh",
        call="route",
        signature="const float *logits, int *ids, float *shares, int *failed, int rows, int experts, int used, int normalize",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"], 8),
    )


def experts_up(gate: BlockType, up: BlockType, activation: str) -> Kernel:
    """h [rows · used, hidden] = f(gate x, up x) of the experts `ids`, also as blocks where hidden_codes is not null."""
    return Kernel(
        name=f"experts_up_{gate.name}_{up.name}_{activation}",
        header="experts.cuh",
        call=f"experts_up<{gate.name}, {up.name}, {ACTIVATIONS[activation]}>",
        signature=f"const u8 *gate, const u8 *up, {_ACTIVATIONS}, const int *ids, const float *gate_bias, "
        "const float *up_bias, float *h, s8 *h_codes, float4 *h_scales, int rows, int used, int hidden, int k",
        threads=256,
        blocks=lambda a: a["rows"] * a["used"] * ceil_div(a["hidden"], EXPERT_ROWS),
    )


def experts_down(kind: BlockType) -> Kernel:
    """y [rows, out] = Σ shares · (down x + bias) over the experts `ids` of each row, + add; x is [rows · used, k]."""
    return Kernel(
        name=f"experts_down_{kind.name}",
        header="experts.cuh",
        call=f"experts_down<{kind.name}>",
        signature=f"const u8 *w, {_ACTIVATIONS}, const int *ids, const float *shares, const float *bias, "
        "const float *add, float *y, int rows, int used, int out, int k",
        threads=256,
        blocks=lambda a: a["rows"] * ceil_div(a["out"], LINEAR_ROWS),
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
        signature=f"const u8 *w, {_ACTIVATIONS}, const int *order, const int4 *tiles, const float *bias, float *y, "
        "int most_tiles, int divisor, int out, int k",
        threads=256,
        blocks=lambda a: ceil_div(a["out"], TILE_OUT) * a["most_tiles"],
    )


def combine() -> Kernel:
    """y [rows, width] = Σ shares · x[pair] over the pairs of each row, + add if that is not null."""
    return Kernel(
        name="combine",
        header="rows.cuh",
        call="combine",
        signature="const float *x, const float *shares, const float *add, float *y, int rows, int used, int width",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"] * a["width"], 256),
    )


def embed(kind: BlockType) -> Kernel:
    """y [rows, width] = w[token of each row]."""
    return Kernel(
        name=f"embed_{kind.name}",
        header="embed.cuh",
        call=f"embed<{kind.name}>",
        signature="const u8 *w, const int *tokens, float *y, int rows, int width",
        threads=128,
        blocks=lambda a: ceil_div(a["rows"] * (a["width"] if kind in FLOATS else a["width"] // 32), 128),
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


def rms_norm_groups() -> Kernel:
    """Each of `groups` (in all rows together) normalised by itself; weight [width] serves all."""
    return Kernel(
        name="rms_norm_groups",
        header="rows.cuh",
        call="rms_norm_groups",
        signature="const float *x, const float *weight, float *y, float eps, i64 groups, int width",
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
    """y [rows, heads · head_size] = x rotated by the table; y may be x."""
    return Kernel(
        name=f"rope_{layout.value}",
        header="rows.cuh",
        call=f"rope<{'true' if layout is RopeLayout.INTERLEAVED else 'false'}>",
        signature="const float *x, const float2 *table, float *y, int rows, int heads, int head_size, int pairs",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"] * a["heads"] * (a["head_size"] - a["pairs"]), 256),
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


def gate(activation: str) -> Kernel:
    """y = f(gate, up), n elements; blocks too where codes is not null (rows are then multiples of 32)."""
    return Kernel(
        name=f"gate_{activation}",
        header="rows.cuh",
        call=f"gate<{ACTIVATIONS[activation]}>",
        signature="const float *gate, const float *up, float *y, s8 *codes, float4 *scales, i64 n",
        threads=256,
        blocks=lambda a: ceil_div(a["n"], 256),
    )


def gate_rows() -> Kernel:
    """y [rows, width] = sigmoid(gate [rows]) · up."""
    return Kernel(
        name="gate_rows",
        header="rows.cuh",
        call="gate_rows",
        signature="const float *gate, const float *up, float *y, int rows, int width",
        threads=256,
        blocks=lambda a: ceil_div(a["rows"] * a["width"], 256),
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


TILED = (BlockType.F16, BlockType.Q8_0, BlockType.Q4_0)
KV_TYPES = (BlockType.F32, BlockType.F16, BlockType.BF16, BlockType.Q8_0, BlockType.Q4_0)


def store(kind: BlockType) -> Kernel:
    """Write k and v [rows, width] to the slots of each row; width is kv_heads · head_size.

    A cache is [slots, width] in blocks of the type, keys and values apart; slots < 0 are left out.
    """
    return Kernel(
        name=f"store_{kind.name}",
        header="cache.cuh",
        call=f"store<{kind.name}>",
        signature="const float *k, const float *v, const int *slots, u8 *keys, u8 *values, int rows, int width",
        threads=256,
        blocks=lambda a: ceil_div(2 * a["rows"] * ceil_div(a["width"], 32), 8),
    )


def copy_blocks() -> Kernel:
    """Copy blocks of a cache, (source, target) of each pair in order; block_bytes are those of a whole block."""
    return Kernel(
        name="copy_blocks",
        header="cache.cuh",
        call="copy_blocks",
        signature="u8 *cache, const int2 *pairs, int count, i64 block_bytes",
        threads=256,
        blocks=lambda a: ceil_div(a["block_bytes"], 16 * 256),
    )


def attend(kind: BlockType, head_size: int, group: int) -> Kernel:
    """Attention of few rows: each block takes a row, a kv head with its `group` heads, and one of `splits` of the positions.

    With one split, out [rows, heads · head_size] is written. With more, partial [rows · kv_heads · group, splits,
    head_size + 2] is, and `attend_combine` makes out of it. `window` 0: none; `sinks` may be null.
    """
    return Kernel(
        name=f"attend_{kind.name}_{head_size}_{group}",
        header="attend.cuh",
        call=f"attend<{kind.name}, {head_size}, {group}, {heads_at_once(group)}>",
        signature="const float *q, const u8 *keys, const u8 *values, const int *tables, const int *sequence, "
        "const int *positions, const float *sinks, float *out, float *partial, int rows, int kv_heads, "
        "int table_width, int block_size, int window, float scale, int splits",
        threads=128,
        blocks=lambda a: a["rows"] * a["kv_heads"] * (group // heads_at_once(group)) * a["splits"],
    )


def heads_at_once(group: int) -> int:
    """Heads of a kv head that a block of `attend` does: the most up to 8 that divide the group."""
    return max(heads for heads in range(1, 9) if group % heads == 0)


def attend_combine(head_size: int) -> Kernel:
    """out [rows, heads · head_size] from the partial results of `attend`."""
    return Kernel(
        name=f"attend_combine_{head_size}",
        header="attend.cuh",
        call=f"attend_combine<{head_size}>",
        signature="const float *partial, const float *sinks, float *out, int rows, int heads, int splits",
        threads=128,
        blocks=lambda a: ceil_div(a["rows"] * a["heads"], 4),
    )


def attend_tile(kind: BlockType, head_size: int, group: int) -> Kernel:
    """Attention of many rows: `tiles` int2 [count] of (first row, rows), at most `tile_rows`, all of one sequence."""
    return Kernel(
        name=f"attend_tile_{kind.name}_{head_size}_{group}",
        header="attend_tile.cuh",
        call=f"attend_tile<{kind.name}, {head_size}, {group}>",
        signature="const float *q, const u8 *keys, const u8 *values, const int *tables, const int *sequence, "
        "const int *positions, const float *sinks, float *out, const int2 *tiles, int count, int kv_heads, "
        "int table_width, int block_size, int window, float scale",
        threads=128,
        blocks=lambda a: a["count"] * a["kv_heads"],
    )


def fits_tiles(kind: BlockType, head_size: int, group: int) -> bool:
    """Whether there is an `attend_tile`: numbers that two halves hold, and what a block's registers have room for."""
    return kind in TILED and head_size <= 128 and head_size % max(16, kind.block_size) == 0 and group <= QUERIES


def tile_rows(group: int) -> int:
    """Rows of a tile of `attend_tile` at most."""
    return QUERIES // group


def argmax() -> Kernel:
    """tokens [rows]: the lowest index of the largest of logits [rows, vocabulary]; *failed is 1 if that is not finite."""
    return Kernel(
        name="argmax",
        header="sample.cuh",
        call="argmax",
        signature="const float *logits, int *tokens, int *failed, int rows, int vocabulary",
        threads=1024,
        blocks=lambda a: a["rows"],
    )


def sample() -> Kernel:
    """tokens [rows] drawn from logits [rows, vocabulary] as the engine's Sampler does: top_k (0: all), top_p, min_p,
    temperature (0: the largest), each an array [rows], and the number of (seed, count), where count is how many tokens
    there are before.
    """
    return Kernel(
        name="sample",
        header="sample.cuh",
        call="sample",
        signature="const float *logits, const float *temperatures, const int *top_ks, const float *top_ps, "
        "const float *min_ps, const u64 *seeds, const int *counts, int *tokens, int *failed, int rows, int vocabulary",
        threads=1024,
        blocks=lambda a: a["rows"],
    )


def advance() -> Kernel:
    """The next decode step's inputs: tokens = chosen, positions, lengths and counts one on, slots from the tables.

    Row i is of sequence i; counts may be null.
    """
    return Kernel(
        name="advance",
        header="sample.cuh",
        call="advance",
        signature="const int *chosen, int *tokens, int *positions, int *slots, int *lengths, int *counts, "
        "const int *tables, int rows, int table_width, int block_size",
        threads=128,
        blocks=lambda a: ceil_div(a["rows"], 128),
    )
