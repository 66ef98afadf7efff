"""A text in windows of tokens, and what a model predicts in them.

Each window begins with the token that the model begins with, if it has one. What counts are the predictions in the
second half of each window, which have some context: as in llama.cpp's program `llama-perplexity`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from edgert_models.errors import BackendError, RequestError
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgert import LLM

WINDOW = 512
LEAST_WINDOW = 8
ROWS = 64
"""Of logits that are worked on at once, in float64."""

Float64 = NDArray[np.float64]


def cut(llm: LLM, text: str, window: int = WINDOW, most: int | None = None) -> list[list[int]]:
    """The whole windows of a text, at most `most`; RequestError for a text shorter than one."""
    if window < LEAST_WINDOW:
        raise RequestError(f"a window of {window} tokens is too small; {LEAST_WINDOW} is the least", parameter="window")
    ids, vocabulary = llm.tokenize(text), llm.tokenizer.vocabulary
    begin = ids[:1] if vocabulary.add_bos and vocabulary.bos_id is not None else []
    if len(ids) < window:
        reason = f"the text has {len(ids)} tokens, fewer than a window of {window}; take a longer text or --window"
        raise RequestError(reason, parameter="window")
    pieces = [ids[start : start + window] for start in range(0, len(ids) - window + 1, window)][:most]
    return [begin + each[len(begin) :] for each in pieces]


def counted(window: int) -> int:
    """Predictions that count in a window: those that follow the tokens of its second half but the last."""
    return window - window // 2 - 1


def targets(ids: Sequence[int]) -> NDArray[np.int64]:
    """The tokens whose predictions count, int64 [counted]."""
    return np.array(ids[len(ids) // 2 + 1 :], np.int64)


def logits(llm: LLM, ids: Sequence[int], name: str) -> NDArray[np.float32]:
    """For every prediction that counts, float32 [counted, vocabulary]; BackendError if one is no number."""
    found = llm.logits(ids)[len(ids) // 2 : -1]
    if not np.isfinite(found).all():
        raise BackendError(f"{name} predicts what is no number; its weights are damaged, or activations overflow")
    return found


def parts(rows: int) -> Iterator[slice]:
    """So many rows in pieces of at most `ROWS`."""
    return (slice(start, min(start + ROWS, rows)) for start in range(0, rows, ROWS))


def log_softmax(logits: NDArray[np.float32]) -> Float64:
    """Of every row, in float64."""
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values


def text_sha256(text: str) -> str:
    """Of the text's UTF-8, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def vocabulary_sha256(llm: LLM) -> str:
    """What the model's token ids stand for, as one number."""
    digest = hashlib.sha256()
    for token in llm.tokenizer.vocabulary.tokens[: llm.vocabulary]:
        piece = token.encode()
        digest.update(len(piece).to_bytes(4, "little") + piece)
    return digest.hexdigest()
