"""Error compensation: rounding weights for the outputs' sake, by the covariance of a matrix's inputs (GPTQ)."""

from edgert_quant.compensation.feedback import Feedback, output_errors
from edgert_quant.compensation.rounding import compensate
from edgert_quant.compensation.shrink import Candidate, Choice, candidates, choose_shrink, shrunk

__all__ = [
    "Candidate",
    "Choice",
    "Feedback",
    "candidates",
    "choose_shrink",
    "compensate",
    "output_errors",
    "shrunk",
]
