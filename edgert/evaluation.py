"""How well a model predicts a text, and how far its predictions are from another's.

The text is cut into windows of tokens, each beginning with the token that the model begins with, if it has one. What
counts are the predictions in the second half of each window, which have some context: as in llama.cpp's program
`llama-perplexity`, whose figures these are therefore comparable with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from edgert_models.errors import BackendError, RequestError
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgert import LLM

WINDOW = 512
ROWS = 64
"""Of logits that are worked on at once, in float64."""
LEAST_WINDOW = 8

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A mean and its standard error, as if tokens were independent."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Float64) -> Figure:
        """Of at least one value; a single one has no error to speak of."""
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        return cls(float(values.mean()), spread / math.sqrt(len(values)))


@dataclass(frozen=True)
class Comparison:
    """Beside a reference. Divergences are Kullback-Leibler's from the reference's distribution of the next token, in
    nats; `same_top` is the share of tokens for which both find the same likeliest; `log_ratio` is that of the
    perplexities.
    """

    reference: str
    reference_perplexity: Figure
    log_ratio: Figure
    divergence: Figure
    median: float
    percentile_99: float
    percentile_99_9: float
    largest: float
    same_top: Figure


@dataclass(frozen=True)
class Evaluation:
    """What was found. `tokens` is how many predictions count."""

    model: str
    text_sha256: str
    window: int
    windows: int
    tokens: int
    perplexity: Figure
    comparison: Comparison | None = None
    divergences: Float64 | None = None
    """Of every token, in order."""

    def plain(self) -> dict[str, Any]:
        """For JSON: everything but the tokens' divergences."""
        found = asdict(self)
        del found["divergences"]
        return found


def evaluate(
    llm: LLM,
    text: str,
    *,
    reference: LLM | None = None,
    names: tuple[str, str] = ("model", "reference"),
    window: int = WINDOW,
    most_windows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score `text` window by window: memory does not grow with the text. `progress(done, total)` counts windows.

    RequestError for a text shorter than a window, or a reference with another tokenizer; BackendError for logits that
    are no numbers.
    """
    windows = _windows(llm, text, window, most_windows)
    unlike = RequestError(f"{names[1]} has another vocabulary than {names[0]}: predictions cannot be compared")
    if reference is not None and _windows(reference, text, window, most_windows) != windows:
        raise unlike
    losses: list[Float64] = []
    others: list[tuple[Float64, ...]] = []
    for done, ids in enumerate(windows):
        if progress is not None:
            progress(done, len(windows))
        logits = _second_half(llm, ids, names[0])
        other = None if reference is None else _second_half(reference, ids, names[1])
        if other is not None and other.shape != logits.shape:
            raise unlike
        targets = np.array(ids[len(ids) // 2 + 1 :])
        for start in range(0, len(targets), ROWS):
            part = slice(start, start + ROWS)
            q, index = log_softmax(logits[part]), np.arange(len(targets[part]))
            losses.append(-q[index, targets[part]])
            if other is not None:
                p = log_softmax(other[part])
                same = (p.argmax(axis=-1) == q.argmax(axis=-1)).astype(np.float64)
                divergence = np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0.0)  # below zero is rounding
                others.append((-p[index, targets[part]], divergence, same))
    if progress is not None:
        progress(len(windows), len(windows))
    loss = np.concatenate(losses)
    comparison, divergences = None, None
    if others:
        reference_loss, divergences, same = (np.concatenate(values) for values in zip(*others, strict=True))
        comparison = _comparison(names[1], loss, reference_loss, divergences, same)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Evaluation(names[0], digest, window, len(windows), len(loss), _perplexity(loss), comparison, divergences)


def _windows(llm: LLM, text: str, window: int, most: int | None) -> list[list[int]]:
    if window < LEAST_WINDOW:
        raise RequestError(f"a window of {window} tokens is too small; {LEAST_WINDOW} is the least", parameter="window")
    ids, vocabulary = llm.tokenize(text), llm.tokenizer.vocabulary
    begin = ids[:1] if vocabulary.add_bos and vocabulary.bos_id is not None else []
    if len(ids) < window:
        reason = f"the text has {len(ids)} tokens, fewer than a window of {window}; take a longer text or --window"
        raise RequestError(reason, parameter="window")
    cut = [ids[start : start + window] for start in range(0, len(ids) - window + 1, window)][:most]
    return [begin + each[len(begin) :] for each in cut]


def _second_half(llm: LLM, ids: Sequence[int], name: str) -> NDArray[np.float32]:
    """Logits of what follows each token of the second half but the last."""
    logits = llm.logits(ids)[len(ids) // 2 : -1]
    if not np.isfinite(logits).all():
        raise BackendError(f"{name} predicts what is no number; its weights are damaged, or activations overflow")
    return logits


def log_softmax(logits: NDArray[np.float32]) -> Float64:
    """Of every row, in float64."""
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values


def _perplexity(losses: Float64) -> Figure:
    loss = Figure.of(losses)
    mean = math.exp(loss.mean)
    return Figure(mean, mean * loss.error)


def _comparison(name: str, loss: Float64, reference: Float64, divergence: Float64, same: Float64) -> Comparison:
    median, most, nearly_all = (float(value) for value in np.quantile(divergence, (0.5, 0.99, 0.999)))
    return Comparison(
        reference=name,
        reference_perplexity=_perplexity(reference),
        log_ratio=Figure.of(loss - reference),
        divergence=Figure.of(divergence),
        median=median,
        percentile_99=most,
        percentile_99_9=nearly_all,
        largest=float(divergence.max()),
        same_top=Figure.of(same),
    )


def rows(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """What a table shows: names and figures."""
    yield "perplexity", _with_error(evaluation.perplexity, 3)
    found = evaluation.comparison
    if found is not None:
        yield "perplexity of the reference", _with_error(found.reference_perplexity, 3)
        yield "ln of their ratio", _with_error(found.log_ratio, 5)
        yield "KL divergence, mean", _with_error(found.divergence, 5)
        yield "KL divergence, median", f"{found.median:.5f}"
        yield "KL divergence, 99 %", f"{found.percentile_99:.5f}"
        yield "KL divergence, 99.9 %", f"{found.percentile_99_9:.5f}"
        yield "KL divergence, largest", f"{found.largest:.5f}"
        yield (
            "same likeliest token",
            _with_error(Figure(100 * found.same_top.mean, 100 * found.same_top.error), 2) + " %",
        )


def _with_error(figure: Figure, digits: int) -> str:
    return f"{figure.mean:.{digits}f} ± {figure.error:.{digits}f}"
