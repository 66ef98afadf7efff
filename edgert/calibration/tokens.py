"""A text as windows of tokens. They lie in a temporary file, so that memory does not grow with the text."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from edgert_models.errors import RequestError
from edgert_quant.files import InputFile, quoted

from edgert.text import Tokenizer

PIECE = 4 << 20
"""Bytes of text that are cut into tokens at once. Longer texts are divided where a line begins."""
LEAST_WINDOW = 8

_LINE = re.compile(r"\n(?=\S)")


class Tokens:
    """Windows of `window` tokens of a text, as llama.cpp's `llama-imatrix` makes them: one after another, each with the
    token that the model begins with (if it has one) in the place of its first. What is left at the end is dropped.

    `path` is a file of UTF-8 text or, named *.jsonl, of JSON objects a line, whose "text" is taken. Raises RequestError
    for a file that is not that, or too short for a single window. Use as a context manager.
    """

    def __init__(
        self,
        path: str | Path,
        tokenizer: Tokenizer,
        *,
        window: int,
        most_windows: int | None = None,
        parse_special: bool = False,
    ) -> None:
        if window < LEAST_WINDOW:
            reason = f"a window of {window} tokens is too small; {LEAST_WINDOW} is the least"
            raise RequestError(reason, parameter="window")
        self.path, self.window = Path(path), window
        begin = tokenizer.bos_id if tokenizer.vocabulary.add_bos else None
        self._begin = [] if begin is None else [begin]
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        try:
            digest, count = hashlib.sha256(), 0
            for piece in pieces(self.path):
                digest.update(piece.encode())
                ids = tokenizer.encode(piece, add_special=not count, parse_special=parse_special)
                self._file.write(np.array(ids, np.int32).tobytes())
                count += len(ids)
            self.sha256 = digest.hexdigest()
            self.windows = count // window if most_windows is None else min(count // window, most_windows)
            if not self.windows:
                known = "is empty" if not count else f"has {count} tokens, fewer than a window of {window}"
                raise RequestError(f"{self.path}: the text {known}; take a longer one or --window", parameter="text")
        except BaseException:
            self._file.close()
            raise

    def read(self, first: int, end: int) -> list[list[int]]:
        """The windows first … end."""
        self._file.seek(4 * first * self.window)
        found = np.frombuffer(self._file.read(4 * (end - first) * self.window), np.int32).reshape(-1, self.window)
        return [[*self._begin, *window[len(self._begin) :]] for window in found.tolist()]

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()

    def __enter__(self) -> Tokens:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pieces(path: Path) -> Iterator[str]:
    """A text in pieces of about `PIECE` bytes."""
    if path.suffix == ".jsonl":
        yield from _of_records(path)
        return
    held = ""
    for text in _decoded(path):
        held += text
        if len(held) >= PIECE:
            ends = [match.end() for match in _LINE.finditer(held)] or [len(held)]
            yield held[: ends[-1]]
            held = held[ends[-1] :]
    if held:
        yield held


def _decoded(path: Path) -> Iterator[str]:
    """A file, block by block, as it decodes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    file = InputFile(path)
    try:
        for at in range(0, file.size, PIECE):
            waiting = len(decoder.getstate()[0])
            count = min(PIECE, file.size - at)
            try:
                yield decoder.decode(file.read(at, count, "text"), final=at + count == file.size)
            except UnicodeDecodeError as error:
                reason = f"{path} is no UTF-8 text (byte {at - waiting + error.start})"
                raise RequestError(reason, parameter="text") from error
    finally:
        file.close()


def _of_records(path: Path) -> Iterator[str]:
    """The texts of a file of records."""
    held: list[str] = []
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            reason = f'{path}, line {number}: {quoted(line)} is no JSON object with a "text"'
            raise RequestError(reason, parameter="text")
        held.append(text)
        if sum(map(len, held)) >= PIECE:
            yield "".join(held)
            held = []
    if held:
        yield "".join(held)


def lines(path: Path) -> Iterator[str]:
    """Lines of a file, without the ends; of a text without any, all of it."""
    held = ""
    for text in _decoded(path):
        *whole, held = (held + text).split("\n")
        yield from whole
    if held:
        yield held
