"""Holding answers to a form: from schemas, expressions and grammars to the tokens that may come next.

The grammar engine is llguidance. `AnswerForm` says what an answer looks like, with the model's own reasoning and calls;
`Compiler` makes a `TokenConstraint` of it, which the engine asks before each token.
"""

from edgert.constraints.compiler import Compiler
from edgert.constraints.form import AnswerForm, CallsForm, Thinking
from edgert.constraints.matcher import TokenConstraint

__all__ = ["AnswerForm", "CallsForm", "Compiler", "Thinking", "TokenConstraint"]
