"""Error compensation: rounding weights for the outputs' sake, by the covariance of a matrix's inputs (GPTQ)."""

from edgert_quant.compensation.feedback import Feedback, output_errors
from edgert_quant.compensation.rounding import compensate

__all__ = ["Feedback", "compensate", "output_errors"]
