"""Does a batch stay within the model and the cache? Checked before a step, so that no kernel reads where it must
not.
"""

from __future__ import annotations

from edgert_quant.jit import kernel
from edgert_quant.jit.primitives import load_i32, load_i64

from edgert_runtimes.cpu.kernels.table import (
    BLOCK_TABLES,
    PICK,
    PICKED,
    POSITIONS,
    ROWS,
    SEQUENCE,
    SLOTS,
    TABLE_WIDTH,
    TOKENS,
)

FAULTS = ("tokens", "positions", "sequence", "slots", "tables", "pick")
"""What `check_batch` names by 1 + its place here, in the low 8 bits; the rest is the row, sequence or pick at fault."""


@kernel
def check_batch(state: int, vocabulary: int, context: int, blocks: int, block_size: int, sequences: int) -> int:
    """0, or the first index out of range; see FAULTS. Tables are checked as far as the rows of a sequence reach."""
    for row in range(load_i64(state, ROWS)):
        token, position = load_i32(load_i64(state, TOKENS), row), load_i32(load_i64(state, POSITIONS), row)
        if token < 0 or token >= vocabulary:
            return int(row << 8 | 1)
        if position < 0 or position >= context or position >= load_i64(state, TABLE_WIDTH) * block_size:
            return int(row << 8 | 2)
        sequence, slot = load_i32(load_i64(state, SEQUENCE), row), load_i32(load_i64(state, SLOTS), row)
        if sequence < 0 or sequence >= sequences:
            return int(row << 8 | 3)
        if slot < 0 or slot >= blocks * block_size:
            return int(row << 8 | 4)
        last = row + 1 == load_i64(state, ROWS) or load_i32(load_i64(state, SEQUENCE), row + 1) != sequence
        if last or load_i32(load_i64(state, POSITIONS), row + 1) < position:
            table = load_i64(state, BLOCK_TABLES) + 4 * sequence * load_i64(state, TABLE_WIDTH)
            for i in range(position // block_size + 1):
                block = load_i32(table, i)
                if block < 0 or block >= blocks:
                    return int(sequence << 8 | 5)
    for i in range(load_i64(state, PICKED)):
        picked = load_i32(load_i64(state, PICK), i)
        if picked < 0 or picked >= load_i64(state, ROWS):
            return int(i << 8 | 6)
    return 0
