"""How well a model predicts a text, and how far its predictions are from another's.

The text is cut into windows of tokens (see `edgert.windows`) as llama.cpp's program `llama-perplexity` does it, whose
figures these are therefore comparable with. The other's predictions are computed side by side, or were stored before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from edgert_models.errors import RequestError
from numpy.typing import NDArray

from edgert import windows as cutting
from edgert.predictions import TOP, Predictions, PredictionsWriter
from edgert.windows import WINDOW, Float64, log_softmax

if TYPE_CHECKING:
    from edgert import LLM


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
    text: str | None = None,
    *,
    reference: LLM | Predictions | None = None,
    names: tuple[str, str] = ("model", "reference"),
    window: int | None = None,
    most_windows: int | None = None,
    save: str | Path | None = None,
    top: int = TOP,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score `text` window by window: memory does not grow with the text. `progress(done, total)` counts windows.

    With stored predictions as `reference`, their windows are scored, and `text` is only checked to be theirs if it is
    given. The divergence is then that over the listed tokens and all others as one, and for what is lost within these
    an estimate from the sampled ones, right on average (J. Schulman, "Approximating KL Divergence"). `window` is 512
    tokens unless it is given or the predictions say otherwise. `save` is where to store what `llm` itself predicts,
    with its `top` likeliest tokens.

    RequestError for a text shorter than a window, a reference with another tokenizer, or predictions of another text or
    window; FileFormatError for damaged predictions; BackendError for logits that are no numbers.
    """
    own, other = names
    beside: _Beside | None = None
    if isinstance(reference, Predictions):
        other = reference.model
        window, digest = reference.window if window is None else window, reference.text_sha256
        beside = _Stored(reference, llm, own, text, window)
        windows = [reference.tokens(i).tolist() for i in range(reference.windows)[:most_windows]]
    else:
        if text is None:
            raise RequestError("there is no text to score, nor stored predictions of one", parameter="text")
        window, digest = window or WINDOW, cutting.text_sha256(text)
        windows = cutting.cut(llm, text, window, most_windows)
        if reference is not None:
            if cutting.cut(reference, text, window, most_windows) != windows:
                raise _unlike(other, own)
            beside = _Live(reference, other, own)
    losses: list[Float64] = []
    others: list[tuple[Float64, ...]] = []
    with ExitStack() as stack:
        writer: PredictionsWriter | None = None
        if save is not None:
            writer = PredictionsWriter(save, llm, model=own, text_sha256=digest, window=window, top=top)
            stack.enter_context(writer)
        for done, ids in enumerate(windows):
            if progress is not None:
                progress(done, len(windows))
            if writer is not None:
                writer.begin(ids)
            logits, targets = cutting.logits(llm, ids, own), cutting.targets(ids)
            if beside is not None:
                beside.begin(done, ids)
            for part in cutting.parts(len(targets)):
                q = log_softmax(logits[part])
                losses.append(-q[np.arange(len(q)), targets[part]])
                if beside is not None:
                    others.append(beside.compare(part, q, targets[part]))
                if writer is not None:
                    writer.add(q, targets[part])
    if progress is not None:
        progress(len(windows), len(windows))
    loss = np.concatenate(losses)
    comparison, divergences = None, None
    if others:
        reference_loss, divergences, same = (np.concatenate(values) for values in zip(*others, strict=True))
        comparison = _comparison(other, loss, reference_loss, divergences, same)
    return Evaluation(own, digest, window, len(windows), len(loss), _perplexity(loss), comparison, divergences)


class _Beside(Protocol):
    """Predictions to compare with."""

    def begin(self, window: int, ids: Sequence[int]) -> None:
        """The next window is this."""

    def compare(self, part: slice, q: Float64, targets: NDArray[np.int64]) -> tuple[Float64, Float64, Float64]:
        """For rows of the window whose log-probabilities are `q`: the reference's losses, the divergences from it, and
        1 where the likeliest token is the same, else 0.
        """


class _Live:
    """Of a model that is there."""

    def __init__(self, reference: LLM, name: str, own: str) -> None:
        self._reference, self._name, self._own = reference, name, own
        self._logits: NDArray[np.float32] = np.empty((0, 0), np.float32)

    def begin(self, window: int, ids: Sequence[int]) -> None:
        """See `_Beside`."""
        self._logits = cutting.logits(self._reference, ids, self._name)

    def compare(self, part: slice, q: Float64, targets: NDArray[np.int64]) -> tuple[Float64, Float64, Float64]:
        """See `_Beside`."""
        if self._logits.shape[-1] != q.shape[-1]:
            raise _unlike(self._name, self._own)
        p = log_softmax(self._logits[part])
        divergence = np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0.0)  # below zero is rounding
        return -p[np.arange(len(p)), targets], divergence, _same(p.argmax(axis=-1), q)


_LEAST = -700.0
"""The least logarithm of a probability that is more than nothing, in float64."""


class _Stored:
    """Of a file."""

    def __init__(self, stored: Predictions, llm: LLM, own: str, text: str | None, window: int) -> None:
        self._stored = stored
        name = stored.path.name
        if text is not None and cutting.text_sha256(text) != stored.text_sha256:
            raise RequestError(f"{name} has predictions for another text; leave out the text", parameter="text")
        if window != stored.window:
            reason = f"{name} has predictions for windows of {stored.window} tokens, not {window}"
            raise RequestError(reason, parameter="window")
        if (stored.vocabulary, stored.vocabulary_sha256) != (llm.vocabulary, cutting.vocabulary_sha256(llm)):
            raise _unlike(name, own)

    def begin(self, window: int, ids: Sequence[int]) -> None:
        """See `_Beside`."""
        listed, self._listed, self._rest = self._stored.rows(window)
        drawn, drawn_p = self._stored.sampled(window)
        self._ids, self._drawn = listed.astype(np.intp), (drawn.astype(np.intp), drawn_p)
        self._following = self._stored.following(window)

    def compare(self, part: slice, q: Float64, targets: NDArray[np.int64]) -> tuple[Float64, Float64, Float64]:
        """See `_Beside`."""
        ids, p, rest = self._ids[part], self._listed[part].astype(np.float64), self._rest[part].astype(np.float64)
        others = np.exp(q)
        np.put_along_axis(others, ids, 0.0, axis=-1)
        with np.errstate(divide="ignore"):
            own_rest = np.maximum(np.log(others.sum(axis=-1)), _LEAST)
        divergence = (np.exp(p) * (p - np.take_along_axis(q, ids, axis=-1))).sum(axis=-1)
        some = rest > _LEAST  # else all tokens are listed, or as good as all
        divergence[some] += np.exp(rest[some]) * (rest - own_rest)[some]
        if self._stored.samples:
            # Within the rest: the mean of r - 1 - ln r over p is the divergence, r = q / p, both of the rest alone.
            drawn, drawn_p = self._drawn[0][part][some], self._drawn[1][part][some].astype(np.float64)
            ratio = np.take_along_axis(q[some], drawn, axis=-1) - drawn_p + (rest - own_rest)[some, None]
            with np.errstate(over="ignore"):
                divergence[some] += np.exp(rest[some]) * (np.exp(ratio) - 1 - ratio).mean(axis=-1)
        return -self._following[part].astype(np.float64), np.maximum(divergence, 0.0), _same(ids[:, 0], q)


def _same(likeliest: NDArray[np.integer[Any]], q: Float64) -> Float64:
    same: NDArray[np.bool_] = likeliest == q.argmax(axis=-1)
    return same.astype(np.float64)


def _unlike(other: str, own: str) -> RequestError:
    return RequestError(f"{other} has another vocabulary than {own}: predictions cannot be compared")


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
