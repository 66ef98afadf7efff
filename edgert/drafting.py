"""How a model's tokens are guessed: by lookup, by a draft model, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from edgert_models import build_plan, spec_from_gguf
from edgert_models.errors import RequestError, UnsupportedError
from edgert_quant.gguf import GgufFile
from edgert_quant.vocabulary import Vocabulary
from edgert_runtimes.base import Backend, Limits, Progress, Session
from edgert_runtimes.weights import GgufWeights, check_weights

from edgert.capacity import choose_limits, first_that_fits
from edgert.engine.speculation import Draft, Lookup, Speculation
from edgert.resolve import resolve_model
from edgert.text import Tokenizer

Speculate = Literal["auto", "off", "lookup", "draft"]
EXACT = ("cpu", "reference")
"""Backends that give the same logits, to the bit, however many rows a step has."""

LEAST_BYTES = 100_000_000
"""Of a model's weights, from which on lookup is tried without being asked for: steps of smaller ones are so short that
what Python does for guesses takes more time than they can save.
"""


class Drafting:
    """A model's speculation, None where it has none, and the draft model's file that is open for it."""

    def __init__(self, speculation: Speculation | None, file: GgufFile | None = None) -> None:
        self.speculation = speculation
        self._file = file

    def close(self) -> None:
        """Close the file, once the engine is closed."""
        if self._file is not None:
            self._file.close()


def check_speculate(speculate: str, draft: str | Path | None) -> None:
    """RequestError for a way to speculate that there is not, or that does not go with having a draft model or none."""
    if speculate not in get_args(Speculate):
        reason = f"speculate must be one of {', '.join(get_args(Speculate))}, not {speculate!r:.40}"
        raise RequestError(reason, parameter="speculate")
    if speculate == "draft" and draft is None:
        raise RequestError("speculate is 'draft', but there is no draft model (draft, --draft)", parameter="draft")
    if speculate in ("off", "lookup") and draft is not None:
        raise RequestError(f"a draft model has no use with speculate {speculate!r}", parameter="draft")


def open_drafting(
    speculate: Speculate,
    draft: str | Path | None,
    *,
    tokenizer: Tokenizer | None,
    vocabulary: int,
    session: Session,
    runtime: Backend,
    progress: Progress | None,
) -> Drafting:
    """What guesses for a model with this tokenizer, the first `vocabulary` of its tokens, and this session; see LLM for
    what there is to choose.

    UnsupportedError where a draft model has other tokens, or where the model (or the draft) has recurrent states.
    """
    automatic, limits = speculate == "auto", session.limits
    if limits.states:
        if automatic and draft is None:
            return Drafting(None)
        if speculate != "off":
            raise UnsupportedError("speculation: this model has recurrent states, which cannot take tokens back")
    suits = session.report.backend in EXACT and session.report.weight_bytes >= LEAST_BYTES
    if speculate == "off" or (automatic and draft is None and not suits):
        return Drafting(None)
    if draft is None:
        return Drafting(Speculation(Lookup(), always=not automatic))
    file = GgufFile.open(resolve_model(draft, progress=progress))
    try:
        own = _draft_session(file, tokenizer, limits, runtime, progress)
    except BaseException:
        file.close()
        raise
    return Drafting(Speculation(Draft(own, vocabulary), most=5, always=not automatic), file)


def _draft_session(
    file: GgufFile, tokenizer: Tokenizer | None, limits: Limits, runtime: Backend, progress: Progress | None
) -> Session:
    spec = spec_from_gguf(file.metadata, {name: tensor.shape for name, tensor in file.tensors.items()})
    plan, weights = build_plan(spec), GgufWeights(file)
    check_weights(plan, weights, str(file.path))
    chosen: Sequence[Limits] = choose_limits(
        plan,
        weights,
        context=min(limits.context, spec.context),
        sequences=limits.sequences,
        rows=limits.rows,
        kv_type="auto",
        threads=limits.threads,
        memory=None,
        windows=False,
    )
    if chosen[0].states:
        reason = "its recurrent states cannot take tokens back"
        raise UnsupportedError(f"{file.path} cannot be a draft model here: {reason}")
    own = Vocabulary.from_metadata(file.metadata)
    if tokenizer is None or own.tokens != tokenizer.vocabulary.tokens:
        raise UnsupportedError(f"{file.path} cannot be a draft model here: its tokens are not those of the model")
    return first_that_fits(chosen, lambda each: runtime.load(plan, weights, each, progress))
