"""Choosing the next token from a row of logits.

A chain of steps, each of which changes logits or keeps some of the tokens, and at its end one pick. What each step
does, and the order where nobody asks for another, are llama.cpp's (`src/llama-sampler.cpp`, `common/sampling.cpp`).
Rows are not stacked: at the vocabularies of real models a pass over one row keeps the processor busy by itself.
"""

from edgert.engine.sampling.base import Constraint, TokenLogprob, uniform
from edgert.engine.sampling.breakers import Breakers
from edgert.engine.sampling.sampler import Sampler

__all__ = ["Breakers", "Constraint", "Sampler", "TokenLogprob", "uniform"]
