"""Scoring a model, whatever runs it: exact answers on held-out samples, perplexity on held-out text."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from demo.corpus.mix import SKILLS, held_out_samples
from demo.corpus.text import held_out_text

WINDOW = 512  # tokens per window of running text
LONGEST_ANSWER = 64  # tokens


class Model(Protocol):
    """What scoring needs of a model."""

    def answers(self, questions: Sequence[str]) -> list[str]:
        """The greedy answer to each question, each in a chat of its own."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text."""
        ...

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        """Logits [len(ids), vocabulary] after each token."""
        ...


def exact_match(
    model: Model, count: int, seed: int = 0, wrong: Callable[[str, str, str], None] | None = None
) -> dict[str, float]:
    """Share of held-out samples answered to the letter, by skill and "overall" (the mean over samples).

    `wrong`, if given, is called with the question, the right answer and the model's for each miss.
    """
    right, total, shares = 0, 0, {}
    for skill in SKILLS:
        samples = held_out_samples(skill, count, seed)
        given = [text.strip() for text in model.answers([sample.question for sample in samples])]
        hits = 0
        for sample, text in zip(samples, given, strict=True):
            hits += text == sample.answer
            if wrong is not None and text != sample.answer:
                wrong(sample.question, sample.answer, text)
        shares[skill] = hits / len(samples)
        right, total = right + hits, total + len(samples)
    return {**shares, "overall": right / total}


def perplexity(model: Model, windows: int) -> float:
    """Perplexity per token on held-out text, in at most `windows` windows of up to `WINDOW` tokens."""
    loss, count = 0.0, 0
    ids = [model.tokenize(text) for text in held_out_text()]
    pieces = [tokens[start : start + WINDOW] for tokens in ids for start in range(0, len(tokens), WINDOW)]
    for piece in [piece for piece in pieces if len(piece) > 1][:windows]:
        logits = model.logits(piece)[:-1].astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(logits, np.array(piece[1:])[:, None], axis=-1)[:, 0]
        loss += float((np.log(np.exp(logits).sum(axis=-1)) - chosen).sum())
        count += len(piece) - 1
    return float(np.exp(loss / count))
