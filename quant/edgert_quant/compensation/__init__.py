"""Rounding that makes up for its own errors: the error of each weight is taken into account by those after it, as far
as what they are multiplied with is correlated (GPTQ, arXiv:2210.17323), on the grids of GGUF's own types.
"""

from edgert_quant.compensation.feedback import Feedback, compensate, loss, shrunk

__all__ = ["Feedback", "compensate", "loss", "shrunk"]
