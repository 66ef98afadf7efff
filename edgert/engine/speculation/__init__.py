"""Speculative decoding: tokens that are guessed go through the model beside the one that is known, as more rows of the
same step (Leviathan et al. 2023, arXiv 2211.17192).

Each row is chosen from as if it were alone, with the random number that belongs to its position, and rows count as long
as what is chosen is what was guessed. So an answer is the same, token by token, with speculation and without; only the
time differs.
"""

from edgert.engine.speculation.base import Proposer
from edgert.engine.speculation.draft import Draft
from edgert.engine.speculation.lookup import Lookup
from edgert.engine.speculation.speculation import Speculation

__all__ = ["Draft", "Lookup", "Proposer", "Speculation"]
