"""Reading stored predictions: what cannot be such is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from edgert_models.errors import FileFormatError, RequestError, UnsupportedError
from edgert_quant.files import quoted
from edgert_quant.gguf import GgufFile
from numpy.typing import NDArray

from edgert.predictions import layout
from edgert.windows import LEAST_WINDOW, counted

_LARGEST_WINDOW = 1 << 20
_SLACK = 1e-3
"""By which probabilities of one place may miss 1: they are rounded to float32."""

Rows = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]


class Predictions:
    """A file of stored predictions. Use as a context manager, or `close()`. Safe to read from several threads.

    `model` is the name of the model that predicts; `text_sha256` and `vocabulary_sha256` are hexadecimal digits;
    `vocabulary` is the number of tokens; `windows`, `window` and `top` are counts, `samples` and `rows_per_window` too.
    """

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self.path = file.path
        metadata = file.metadata
        if metadata.string("general.type", "") != layout.TYPE:
            metadata.fail("general.type", f"these are no stored predictions, whose type is {quoted(layout.TYPE)}")
        version = metadata.integer(f"{layout.TYPE}.version")
        if version != layout.VERSION:
            raise UnsupportedError(f"{self.path}: predictions of version {version}; this edgert reads {layout.VERSION}")
        self.model = metadata.string(f"{layout.TYPE}.model")
        self.text_sha256 = metadata.string(f"{layout.TYPE}.text_sha256")
        self.vocabulary_sha256 = metadata.string(f"{layout.TYPE}.vocabulary_sha256")
        self.vocabulary = metadata.integer(f"{layout.TYPE}.vocabulary", minimum=1, maximum=(1 << 31) - 1)
        self.window = metadata.integer(f"{layout.TYPE}.window", minimum=LEAST_WINDOW, maximum=_LARGEST_WINDOW)
        self.windows = metadata.integer(f"{layout.TYPE}.windows", minimum=1)
        self.top = metadata.integer(f"{layout.TYPE}.top", minimum=1, maximum=self.vocabulary)
        self.samples = metadata.integer(f"{layout.TYPE}.samples", minimum=0, maximum=self.vocabulary)
        self.rows_per_window = counted(self.window)
        for name, (kind, shape) in layout.tensors(
            self.windows, self.window, self.top, self.samples, self.vocabulary
        ).items():
            found = file.tensor(name)
            if (found.type, found.shape) != (kind, shape):
                reason = f"is {found.type.name} {list(found.shape)}, not {kind.name} {list(shape)}"
                raise FileFormatError(self.path, reason, offset=found.offset, field=f"tensor {name}")

    @classmethod
    def open(cls, path: str | Path) -> Predictions:
        """RequestError if there is no such file, FileFormatError for one that is damaged or no such predictions."""
        file = GgufFile.open(path)
        try:
            return cls(file)
        except BaseException:
            file.close()
            raise

    def tokens(self, window: int) -> NDArray[np.int32]:
        """The tokens of a window, int32 [window]."""
        found = self._read(layout.TOKENS, window, 1).astype(np.int32)
        self._check(layout.TOKENS, window, (found >= 0) & (found < self.vocabulary), "names a token of no vocabulary")
        return found

    def rows(self, window: int) -> Rows:
        """What was predicted in a window: ids int32 [rows, top], likeliest first; their log-probabilities float32
        [rows, top]; and that of all other tokens together, float32 [rows]. Row `i` is what follows token
        `window // 2 + i`. FileFormatError for what cannot be such.
        """
        ids, listed = self._tokens_of(layout.TOP_IDS, layout.TOP_P, window, self.top)
        rest = self._read(layout.REST_P, window, 1).astype(np.float32)
        ordered = np.sort(ids, axis=-1)
        self._check(layout.TOP_IDS, window, ordered[:, 1:] != ordered[:, :-1], "names a token twice")
        self._check(layout.REST_P, window, rest <= _SLACK, "has no log-probability")  # false for NaN
        total = np.exp(listed, dtype=np.float64).sum(axis=-1) + np.exp(rest, dtype=np.float64)
        self._check(layout.TOP_P, window, np.abs(total - 1) <= _SLACK, "has probabilities whose sum is not 1")
        return ids, listed, rest

    def sampled(self, window: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Some of the tokens that `rows` does not list, as often as they are likely: ids int32 [rows, samples], and
        log-probabilities float32 [rows, samples]. They mean nothing where the others have a probability of 0.
        """
        if not self.samples:
            return np.empty((self.rows_per_window, 0), np.int32), np.empty((self.rows_per_window, 0), np.float32)
        return self._tokens_of(layout.SAMPLE_IDS, layout.SAMPLE_P, window, self.samples)

    def following(self, window: int) -> NDArray[np.float32]:
        """The log-probability of the token that does follow, float32 [rows]."""
        found = self._read(layout.NEXT_P, window, 1).astype(np.float32)
        self._check(layout.NEXT_P, window, np.isfinite(found) & (found <= _SLACK), "has no log-probability")
        return found

    def sha256(self) -> str:
        """Of the whole file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def close(self) -> None:
        """Close the file; twice is fine."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tokens_of(
        self, names: str, values: str, window: int, each: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Tokens and their log-probabilities, [rows, each]."""
        count = self.rows_per_window
        ids = self._read(names, window, count).astype(np.int32).reshape(count, each)
        log_p = self._read(values, window, count).astype(np.float32).reshape(count, each)
        self._check(names, window, (ids >= 0) & (ids < self.vocabulary), "names a token of no vocabulary")
        self._check(values, window, np.isfinite(log_p) & (log_p <= _SLACK), "has no log-probability")
        return ids, log_p

    def _read(self, name: str, window: int, count: int) -> NDArray[Any]:
        """A window's numbers of a tensor with `count` rows for each."""
        if not 0 <= window < self.windows:
            reason = f"{self.path} has {self.windows} windows, none with number {window}"
            raise RequestError(reason, parameter="window")
        kind = layout.DTYPES[self._file.tensor(name).type]
        return self._file.read(name, window * count, count).view(kind).reshape(-1)

    def _check(self, name: str, window: int, good: NDArray[np.bool_], problem: str) -> None:
        whole = good if good.ndim == 1 else good.all(axis=-1)
        if not whole.all():
            reason = f"row {int(np.argmin(whole))} of window {window} {problem}"
            raise FileFormatError(self.path, reason, field=f"tensor {name}")


def is_predictions(path: str | Path) -> bool:
    """Whether a file says that it holds stored predictions; False for what is no GGUF file."""
    try:
        with GgufFile.open(path) as file:
            return file.metadata.string("general.type", "") == layout.TYPE
    except (RequestError, FileFormatError, UnsupportedError):
        return False
