"""The job that tries a grammar out before the server takes it (`edgert.confined`). It imports llguidance only.

llguidance bounds the work of every step, and of most of compiling: this is for the rest of it, and for its faults. The
grammar is compiled for a vocabulary of single bytes, and the first tokens asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def limits() -> Any:
    """How much a grammar may ask for: its size, its states (of about 2 KB each), the work of one step."""
    from llguidance import LLParserLimits

    return LLParserLimits(max_lexer_states=20_000, precompute_large_lexemes=False, verbose_errors=False)


def reason(error: BaseException) -> str:
    """Why a grammar cannot be compiled."""
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:500]


def prepare() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What answers {"lark", "user"} with the user's grammar as Lark, or an error; `user` may be GBNF, or None."""
    from llguidance import LLMatcher, LLTokenizer
    from llguidance.gbnf_to_lark import any_to_lark

    tokenizer, bounds = LLTokenizer("byte"), limits()

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        user = request["user"]
        if user is not None:
            user = any_to_lark(user)
        matcher = LLMatcher(tokenizer, together(request["lark"], user), log_level=0, limits=bounds)
        if not matcher.is_error():
            matcher.compute_bitmask()
        return {"error": matcher.get_error(), "last": False} if matcher.is_error() else {"user": user}

    return handle


def together(lark: str, user: str | None) -> str:
    """Both grammars as llguidance takes them."""
    import json

    grammars = [{"lark_grammar": lark}]
    if user is not None:
        grammars.append({"name": "user", "lark_grammar": user})
    return json.dumps({"grammars": grammars})
