"""From the form of an answer to a constraint on the tokens of one model."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from edgert_models.errors import RequestError
from numpy.typing import NDArray

from edgert.confined import ConfinedProcess
from edgert.constraints.compile_job import limits, together
from edgert.constraints.form import AnswerForm
from edgert.constraints.lark import quoted
from edgert.constraints.matcher import TokenConstraint
from edgert.constraints.messages import plain

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from edgert.text import Tokenizer

_SECONDS = 1.0
_MEMORY = 512 << 20
_KEPT = 16  # compiled forms
_LARGEST = 1 << 20  # of a form with the schemas of all its tools, in characters


class Compiler:
    """Makes constraints for the first `vocabulary` tokens of a tokenizer. Safe to use from several threads.

    The first use sorts the vocabulary, which takes a second for 150,000 tokens. Every new form is first compiled in a
    confined process; what takes more than a second, or 512 MiB, is refused. The latest are kept.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._made: OrderedDict[tuple[str, str | None], TokenConstraint] = OrderedDict()
        self._process = ConfinedProcess(
            Path(__file__).with_name("compile_job.py"),
            ("llguidance",),
            does="compiles grammars",
            error=RequestError,
            timeout=_SECONDS,
            max_output=_LARGEST,
            max_memory=_MEMORY,
        )

    def compile(self, form: AnswerForm, *, begins: bool) -> TokenConstraint:
        """A constraint for one answer; `begins` tells that it begins a text, and goes on with none.

        RequestError names what in the form is not supported.
        """
        lark, user = form.lark(self._with_tokens), form.user_grammar
        if len(lark) > _LARGEST:
            reason = f"the grammar would have {len(lark)} characters; at most {_LARGEST} are taken"
            raise RequestError(f"{form.parameter}: {reason}", parameter=form.parameter)
        with self._lock:
            made = self._made.get((lark, user))
        if made is None:
            made = self._compiled(form, lark)
        never_first = self._spaced if begins and self._tokenizer.strips_leading_space else None
        with self._lock:  # a matcher is for one thread at a time
            self._made[lark, user] = made
            self._made.move_to_end((lark, user))
            if len(self._made) > _KEPT:
                self._made.popitem(last=False)
            return made.copy(form.parameter, never_first)

    def close(self) -> None:
        """End the confined process; to compile again starts another."""
        self._process.close()

    def _compiled(self, form: AnswerForm, lark: str) -> TokenConstraint:
        from llguidance import LLMatcher

        answer = self._process.ask({"lark": form.lark(quoted), "user": form.user_grammar})
        if "error" in answer:
            reason = plain(str(answer["error"]))
            raise RequestError(f"{form.parameter}: {reason}", parameter=form.parameter)
        matcher = LLMatcher(self._trie, together(lark, answer["user"]), log_level=0, limits=limits())
        made = TokenConstraint(matcher, self._vocabulary, form.parameter)
        made.copy(form.parameter).allowed()  # what is too much for this vocabulary shows here
        return made

    @cached_property
    def _trie(self) -> LLTokenizer:
        """The vocabulary, sorted."""
        from llguidance import LLTokenizer, TokenizerWrapper

        tokens = _Tokens(self._tokenizer, self._vocabulary)
        return LLTokenizer(TokenizerWrapper(tokens), n_vocab=len(tokens.tokens), eos_token=tokens.end_ids)

    def _with_tokens(self, text: str) -> str:
        """A text of the model's form, in which control tokens that are written out are these tokens."""
        parts = []
        for place, part in enumerate(self._tokenizer.special.split(text)):
            token = self._tokenizer.token_id(part) if place % 2 else None
            if token is not None and token < self._vocabulary:
                parts.append(f"<[{token}]>")
            elif part:
                parts.append(quoted(part))
        return " ".join(parts)

    @cached_property
    def _spaced(self) -> NDArray[np.int64]:
        """Tokens with a space before them, which a text does not show at its beginning."""
        pieces, carries = self._tokenizer.pieces, self._tokenizer.may_carry_prefix
        found = [token for token in range(self._vocabulary) if pieces[token][:1] == b" " and carries(token)]
        return np.array(found, dtype=np.int64)


class _Tokens:
    """A vocabulary as llguidance wants it. One more token ends answers where the model has none for that."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self.tokens = [*tokenizer.pieces[:vocabulary], b"<end>"]
        self.end_ids = sorted(token for token in tokenizer.stop_ids if token < vocabulary) or [vocabulary]
        self.eos_token_id = self.end_ids[0]
        self.special_token_ids = [*(token for token in range(vocabulary) if tokenizer.is_control(token)), vocabulary]

    def __call__(self, text: str) -> list[int]:
        """No grammar here lets llguidance cut texts into tokens, and it asks only to see whether it could."""
        return []
