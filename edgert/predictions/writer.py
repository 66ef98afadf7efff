"""Writing predictions window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
from edgert_models.errors import ConversionError, RequestError
from edgert_quant.blocks import BlockType
from edgert_quant.gguf import GgufWriter
from numpy.typing import NDArray

from edgert import windows as cutting
from edgert.predictions import layout
from edgert.windows import WINDOW, Float64

if TYPE_CHECKING:
    from edgert import LLM

_PIECE = 4 << 20  # bytes


class PredictionsWriter:
    """Writes a file of predictions: `begin` for each window, then `add` for its rows in order.

    Numbers wait in unnamed temporary files beside the target until all are there, so memory stays bounded. The file
    appears when the `with` block is left without an exception, complete or not at all. Errors are ConversionError.
    """

    def __init__(self, path: str | Path, llm: LLM, *, model: str, text_sha256: str, window: int, top: int) -> None:
        if top < 1:
            raise RequestError(f"{top} tokens cannot be listed; 1 is the least", parameter="top")
        self.path = Path(path)
        self._window, self._vocabulary = window, llm.vocabulary
        self._top = min(top, self._vocabulary)
        self._samples = layout.SAMPLES if self._top < self._vocabulary else 0
        self._windows = 0
        self._random = np.random.default_rng(0)  # the same predictions make the same file
        self._windows = 0
        self._texts = {
            "model": model,
            "text_sha256": text_sha256,
            "vocabulary_sha256": cutting.vocabulary_sha256(llm),
        }
        self._types = {name: kind for name, (kind, _) in self._tensors().items()}
        self._stack = ExitStack()
        folder = self.path.absolute().parent
        if not folder.is_dir():
            raise ConversionError(f"{self.path}: there is no folder {folder}")
        try:
            self._spools: dict[str, IO[bytes]] = {
                name: self._stack.enter_context(TemporaryFile(dir=folder))  # noqa: SIM115  # the stack closes it
                for name in self._types
            }
        except OSError as error:
            self._stack.close()
            raise ConversionError(f"{self.path}: cannot be made: {error.strerror}") from error

    def begin(self, ids: Sequence[int]) -> None:
        """The next window, of exactly `window` tokens."""
        self._windows += 1
        self._spool(layout.TOKENS, np.array(ids))

    def add(self, log_p: Float64, targets: NDArray[np.int64]) -> None:
        """The next predictions, float64 [rows, vocabulary], and the tokens that follow, int64 [rows]."""
        if self._samples:
            ids = np.sort(np.argpartition(-log_p, self._top - 1, axis=-1)[:, : self._top], axis=-1)
        else:
            ids = np.broadcast_to(np.arange(self._vocabulary), log_p.shape)
        listed = np.take_along_axis(log_p, ids, axis=-1)
        order = np.argsort(-listed, axis=-1, kind="stable")  # of equals, the lowest id first
        others = np.exp(log_p)
        np.put_along_axis(others, ids, 0.0, axis=-1)
        self._spool(layout.TOP_IDS, np.take_along_axis(ids, order, axis=-1))
        self._spool(layout.TOP_P, np.take_along_axis(listed, order, axis=-1))
        with np.errstate(divide="ignore"):
            self._spool(layout.REST_P, np.log(others.sum(axis=-1)))
        if self._samples:
            drawn = self._draw(others)
            self._spool(layout.SAMPLE_IDS, drawn)
            self._spool(layout.SAMPLE_P, np.take_along_axis(log_p, drawn, axis=-1))
        self._spool(layout.NEXT_P, np.take_along_axis(log_p, targets[:, None], axis=-1))

    def _draw(self, others: Float64) -> NDArray[np.intp]:
        """Tokens as often as they are likely, [rows, samples]: one from each of as many equal shares of the whole."""
        sums = np.cumsum(others, axis=-1)
        shares = (np.arange(self._samples) + self._random.random((len(sums), self._samples))) / self._samples
        places = np.minimum(shares * sums[:, -1:], np.nextafter(sums[:, -1:], 0))
        found = [np.searchsorted(row, place, side="right") for row, place in zip(sums, places, strict=True)]
        drawn: NDArray[np.intp] = np.array(found, np.intp)
        return np.minimum(drawn, self._vocabulary - 1, out=drawn)  # beyond it only if there is nothing to draw

    def _spool(self, name: str, values: NDArray[Any]) -> None:
        kind = layout.DTYPES[self._types[name]]
        try:
            self._spools[name].write(np.ascontiguousarray(values, kind).tobytes())
        except OSError as error:
            raise ConversionError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _tensors(self) -> dict[str, tuple[BlockType, tuple[int, ...]]]:
        return layout.tensors(self._windows, self._window, self._top, self._samples, self._vocabulary)

    def _finish(self) -> None:
        from edgert import __version__

        if not self._windows:
            raise ConversionError(f"{self.path}: there are no predictions to store")
        with GgufWriter(self.path) as writer:
            writer.add_metadata("general.type", layout.TYPE)
            writer.add_metadata(f"{layout.TYPE}.version", layout.VERSION)
            writer.add_metadata(f"{layout.TYPE}.tool", f"edgert {__version__}")
            for key, text in self._texts.items():
                writer.add_metadata(f"{layout.TYPE}.{key}", text)
            numbers = {"vocabulary": self._vocabulary, "window": self._window, "windows": self._windows}
            for key, number in (numbers | {"top": self._top, "samples": self._samples}).items():
                writer.add_metadata(f"{layout.TYPE}.{key}", number)
            for name, (kind, shape) in self._tensors().items():
                writer.add_tensor(name, kind, shape)
            writer.begin()
            for name, spool in self._spools.items():
                spool.seek(0)
                while piece := spool.read(_PIECE):
                    writer.write(name, piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                self._finish()


def record_predictions(
    llm: LLM,
    text: str,
    path: str | Path,
    *,
    window: int = WINDOW,
    windows: int | None = None,
    top: int = layout.TOP,
    name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Store what `llm` predicts for `text`, cut into windows of `window` tokens, at most `windows`: the `top` likeliest
    tokens of each place.

    `name` is what to call the model; default: its file's name. `progress(done, total)` counts windows. RequestError for
    a text shorter than a window, ConversionError where the file cannot be written.
    """
    name = name or llm.path.name
    pieces = cutting.cut(llm, text, window, windows)
    digest = cutting.text_sha256(text)
    with PredictionsWriter(path, llm, model=name, text_sha256=digest, window=window, top=top) as writer:
        for done, ids in enumerate(pieces):
            if progress is not None:
                progress(done, len(pieces))
            writer.begin(ids)
            logits, targets = cutting.logits(llm, ids, name), cutting.targets(ids)
            for part in cutting.parts(len(targets)):
                writer.add(cutting.log_softmax(logits[part]), targets[part])
    if progress is not None:
        progress(len(pieces), len(pieces))
