"""Ops that do each row by itself. All run in place where out is x."""

from __future__ import annotations

from math import sqrt

from edgert_quant.jit import kernel
from edgert_quant.jit.primitives import (
    call3,
    call4,
    call5,
    copy_bytes,
    dot_f32,
    load_f32,
    load_f64,
    load_i32,
    load_i64,
    store_f32,
)
from numpy import float32, float64

from edgert_runtimes.cpu.kernels.angles import sine_and_cosine
from edgert_runtimes.cpu.kernels.table import (
    CHUNKS,
    OPERANDS,
    PICK,
    POSITIONS,
    TOKENS,
    UNIT_COST,
    divide,
    rows_of,
    scratch_of,
    share,
)
from edgert_runtimes.cpu.kernels.vectors import add_to, soft_capped, total

OUT = OPERANDS
OUT_STRIDE = OPERANDS + 1
X = OPERANDS + 2
X_STRIDE = OPERANDS + 3
Y = OPERANDS + 4
Y_STRIDE = OPERANDS + 5
WIDTH = OPERANDS + 6
WEIGHT = OPERANDS + 7


@kernel
def prepare_rows(state: int, record: int) -> int:
    """Rows in equal chunks."""
    return int(divide(state, rows_of(state, record), load_i64(record, UNIT_COST)))


ROW_BYTES = OPERANDS + 8
PACK = OPERANDS + 9
UNPACK = OPERANDS + 10


@kernel
def embed(state: int, record: int, chunk: int, thread: int) -> None:
    """Rows of the matrix: a panel of one row is packed into scratch, and unpacked."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    width, scratch = load_i64(record, WIDTH), scratch_of(state, thread)
    row_bytes, tokens = load_i64(record, ROW_BYTES), load_i64(state, TOKENS)
    for row in range(first, end):
        source = load_i64(record, WEIGHT) + load_i32(tokens, row) * row_bytes
        call5(load_i64(record, PACK), source, row_bytes, 1, width, scratch)
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        call4(load_i64(record, UNPACK), scratch, 0, width, out)


GROUPS = OPERANDS + 8
EPS = OPERANDS + 9  # a float64
REST = OPERANDS + 10
OWN = OPERANDS + 11  # weights from a group to the next: 0 where they serve all


@kernel
def rms_norm(state: int, record: int, chunk: int, thread: int) -> None:
    """See `ops.RmsNorm`; the sum of squares is a float32 sum of fixed order."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    groups, eps, weight = load_i64(record, GROUPS), load_f64(record, EPS), load_i64(record, WEIGHT)
    width, rest = load_i64(record, WIDTH) // groups, load_i64(record, REST)
    size = width - rest
    for row in range(first, end):
        for group in range(groups):
            x = load_i64(record, X) + 4 * (row * load_i64(record, X_STRIDE) + group * width)
            out = load_i64(record, OUT) + 4 * (row * load_i64(record, OUT_STRIDE) + group * width)
            scale = float32(1.0 / sqrt(float64(dot_f32(x, x, size)) / size + eps))
            if weight == 0:
                for i in range(size):
                    store_f32(out, i, load_f32(x, i) * scale)
            else:
                own = weight + 4 * group * load_i64(record, OWN)
                for i in range(size):
                    store_f32(out, i, load_f32(x, i) * scale * load_f32(own, i))
            if out != x:
                copy_bytes(out + 4 * size, x + 4 * size, 4 * rest)


BIAS = OPERANDS + 8  # its address, or 0


@kernel
def layer_norm(state: int, record: int, chunk: int, thread: int) -> None:
    """See `ops.LayerNorm`; both sums are float32 sums of fixed order."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    eps, weight, bias = load_f64(record, EPS), load_i64(record, WEIGHT), load_i64(record, BIAS)
    width = load_i64(record, WIDTH)
    for row in range(first, end):
        x = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        mean = float32(float64(total(x, width)) / width)
        for i in range(width):
            store_f32(out, i, load_f32(x, i) - mean)
        scale = float32(1.0 / sqrt(float64(dot_f32(out, out, width)) / width + eps))
        for i in range(width):
            store_f32(out, i, load_f32(out, i) * scale * load_f32(weight, i))
        if bias != 0:
            add_to(out, bias, width)


FACTOR = OPERANDS + 8  # a float64


@kernel
def scale(state: int, record: int, chunk: int, thread: int) -> None:
    """out = factor · x, times the number at WEIGHT if that is not 0."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    width, factor = load_i64(record, WIDTH), float32(load_f64(record, FACTOR))
    if load_i64(record, WEIGHT) != 0:
        factor = factor * load_f32(load_i64(record, WEIGHT), 0)
    for row in range(first, end):
        x = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        for i in range(width):
            store_f32(out, i, load_f32(x, i) * factor)


LENGTH = OPERANDS + 8
AHEAD = OPERANDS + 9


@kernel
def position_scale(state: int, record: int, chunk: int, thread: int) -> None:
    """See `ops.PositionScale`; WEIGHT has the factor, a float64, for each multiple of the length."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    width, positions = load_i64(record, WIDTH), load_i64(state, POSITIONS)
    for row in range(first, end):
        x = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        position = load_i32(positions, row) + load_i64(record, AHEAD)
        factor = float32(load_f64(load_i64(record, WEIGHT), position // load_i64(record, LENGTH)))
        for i in range(width):
            store_f32(out, i, load_f32(x, i) * factor)


@kernel
def soft_cap(state: int, record: int, chunk: int, thread: int) -> None:
    """out = factor · tanh(x / factor)."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    width, cap = load_i64(record, WIDTH), float32(load_f64(record, FACTOR))
    for row in range(first, end):
        x = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        soft_capped(out, x, width, cap)


@kernel
def clamp(state: int, record: int, chunk: int, thread: int) -> None:
    """out = x, within ±factor."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    width, limit = load_i64(record, WIDTH), float32(load_f64(record, FACTOR))
    for row in range(first, end):
        x = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        for i in range(width):
            store_f32(out, i, max(-limit, min(load_f32(x, i), limit)))


@kernel
def add(state: int, record: int, chunk: int, thread: int) -> None:
    """out = x + y."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    width = load_i64(record, WIDTH)
    for row in range(first, end):
        x = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        y = load_i64(record, Y) + 4 * row * load_i64(record, Y_STRIDE)
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        for i in range(width):
            store_f32(out, i, load_f32(x, i) + load_f32(y, i))


ACTIVATE = OPERANDS + 8  # one of `gates`
PARTS = OPERANDS + 9  # of a row, each of which has one gate; 1 where each element has its own


@kernel
def gate(state: int, record: int, chunk: int, thread: int) -> None:
    """out = the activation of x and y, part by part of a row."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    parts = load_i64(record, PARTS)
    width = load_i64(record, WIDTH) // parts
    for row in range(first, end):
        x = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        y = load_i64(record, Y) + 4 * row * load_i64(record, Y_STRIDE)
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        for part in range(parts):
            start = 4 * part * width
            call4(load_i64(record, ACTIVATE), out + start, x + 4 * part, y + start, width)


START = OPERANDS + 9  # with GROUPS
X_WIDTH = OPERANDS + 10


@kernel
def slice_rows(state: int, record: int, chunk: int, thread: int) -> None:
    """See `ops.Slice`; X_WIDTH is that of a whole row."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    groups, width = load_i64(record, GROUPS), load_i64(record, WIDTH) // load_i64(record, GROUPS)
    for row in range(first, end):
        x = load_i64(record, X) + 4 * (row * load_i64(record, X_STRIDE) + load_i64(record, START))
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        for group in range(groups):
            copy_bytes(out + 4 * group * width, x + 4 * group * (load_i64(record, X_WIDTH) // groups), 4 * width)


@kernel
def pick_rows(state: int, record: int, chunk: int, thread: int) -> None:
    """out[i] = x[pick[i]]."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    for row in range(first, end):
        x = load_i64(record, X) + 4 * load_i32(load_i64(state, PICK), row) * load_i64(record, X_STRIDE)
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        copy_bytes(out, x, 4 * load_i64(record, WIDTH))


QUANTIZE = OPERANDS + 8


@kernel
def quantize(state: int, record: int, chunk: int, thread: int) -> None:
    """Rows of floats → rows of activations; OUT_STRIDE counts bytes here."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    for row in range(first, end):
        x = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        out = load_i64(record, OUT) + row * load_i64(record, OUT_STRIDE)
        call3(load_i64(record, QUANTIZE), x, out, load_i64(record, WIDTH))


PAIRS = OPERANDS + 8
MAGNITUDE = OPERANDS + 9  # a float64
HEADS = OPERANDS + 10
HEAD_SIZE = OPERANDS + 11
STEP = OPERANDS + 12  # between the two elements of a pair
SPREAD = OPERANDS + 13  # between the first elements of neighbouring pairs
FIRST = OPERANDS + 14  # the first pair's first element


@kernel
def rope_table(state: int, record: int, chunk: int, thread: int) -> None:
    """Cosines, then sines, of every pair's angle at every row's position; WEIGHT is float64 radians per position."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    pairs, magnitude, positions = load_i64(record, PAIRS), load_f64(record, MAGNITUDE), load_i64(state, POSITIONS)
    for row in range(first, end):
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        position = float64(load_i32(positions, row))
        for i in range(pairs):
            sine, cosine = sine_and_cosine(position * load_f64(load_i64(record, WEIGHT), i))
            store_f32(out, i, float32(cosine * magnitude))
            store_f32(out, pairs + i, float32(sine * magnitude))


@kernel
def rope(state: int, record: int, chunk: int, thread: int) -> None:
    """See `ops.Rope`; Y is the table."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    pairs, heads, size = load_i64(record, PAIRS), load_i64(record, HEADS), load_i64(record, HEAD_SIZE)
    step, spread, first_element = load_i64(record, STEP), load_i64(record, SPREAD), load_i64(record, FIRST)
    in_place = load_i64(record, OUT) == load_i64(record, X)
    for row in range(first, end):
        table = load_i64(record, Y) + 4 * row * load_i64(record, Y_STRIDE)
        row_x = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        row_out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        if not in_place:
            copy_bytes(row_out, row_x, 4 * heads * size)
        for head in range(heads):
            out = row_out + 4 * (head * size + first_element)
            for i in range(pairs):
                a, b = load_f32(out, i * spread), load_f32(out, i * spread + step)
                cosine, sine = load_f32(table, i), load_f32(table, pairs + i)
                store_f32(out, i * spread, a * cosine - b * sine)
                store_f32(out, i * spread + step, a * sine + b * cosine)
