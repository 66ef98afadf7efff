"""Importance matrices: how large the inputs of each matrix are, column by column and expert by expert.

The error of a quantized weight counts as often as the square of what it is multiplied with. Files are those of
llama.cpp: its `llama-imatrix` and `llama-quantize` read what is written here, and the other way round.
"""

from edgert_quant.imatrix.coverage import LayerCoverage, coverage, rare_experts, require_coverage
from edgert_quant.imatrix.files import read_imatrix, write_imatrix
from edgert_quant.imatrix.importance import POOL_ROWS, Importance, Sums

__all__ = [
    "POOL_ROWS",
    "Importance",
    "LayerCoverage",
    "Sums",
    "coverage",
    "rare_experts",
    "read_imatrix",
    "require_coverage",
    "write_imatrix",
]
